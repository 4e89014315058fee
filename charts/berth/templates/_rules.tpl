{{/* The operator's rights where it serves Environments, the least that it needs. */}}
{{- define "berth.rules" -}}
- apiGroups: [berth.dev]
  resources: [environments]
  verbs: [get, list, watch, patch] # patch: the finalizer
- apiGroups: [berth.dev]
  resources: [environments/status]
  verbs: [patch]
- apiGroups: [berth.dev]
  resources: [environments/finalizers]
  verbs: [update] # owner references that block deletion, where the cluster enforces them
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
{{- if ne (toString .Values.rbac.attach) "false" }}{{/* older values lack it */}}
- apiGroups: [""]
  resources: [pods/attach]
  verbs: [get, create] # sends a session's line to a waiting shell; since Kubernetes 1.35, a WebSocket needs both verbs
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get] # whether a session started although its connection broke
{{- if ne (toString .Values.rbac.ephemeralContainers) "false" }}
- apiGroups: [""]
  resources: [pods/ephemeralcontainers]
  verbs: [patch] # turns: a sleeping session's next work item runs in its Pod
{{- end }}
{{- end }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, create, patch, delete] # never watched; list: the claims of an Environment, by label
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch] # list: the Events of a Pod that doesn't get ready
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch, delete] # always-on workers
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete] # running sessions under disruption: Protect
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete] # one for the Pods of each Environment
{{- if .Values.features.volumes }}
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, create, patch, delete] # volumes of sessions under workspace: PerSession
{{- end }}
{{- end -}}

{{/* Leader election, in the release's own namespace. */}}
{{- define "berth.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, create, update, delete]
{{- end -}}

{{/* What the uninstall may do with Environments; true: delete them. */}}
{{- define "berth.uninstallRules" -}}
- apiGroups: [berth.dev]
  resources: [environments]
  verbs: [get, list, patch{{ if . }}, delete{{ end }}]
{{- if . }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, delete] # claims of Environments that did not drain in time
{{- end }}
{{- end -}}
