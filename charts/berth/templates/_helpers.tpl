{{/*
A key of a values file with nothing below it is null, and takes away what the chart has below that key. What is empty anyway is
made empty again. Blocks that the chart has always had (those of an older chart may lack the others, with --reuse-values) and
that install something by default are refused: to go on would silently leave that out. Every template includes this first.
*/}}
{{- define "berth.nulls" -}}
{{- range $name := list "allowedApiOrigins" "crds" "features" "health" "image" "metrics" "podDisruptionBudget" "rbac" "serviceAccount" "uninstall" -}}
{{- if not (has (kindOf (get $.Values $name)) (list "map" "slice")) -}}
{{- fail (printf "%s is null; remove the key to use the chart's values, or give it values" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "caBundle" "labels" "livenessProbe" "podAnnotations" "podLabels" "podSecurityContext" "proxy" "readinessProbe" "securityContext" -}}
{{- $_ := set $.Values $name (default dict (get $.Values $name)) -}}
{{- end -}}
{{- $_ := set .Values.metrics "serviceMonitor" (default dict .Values.metrics.serviceMonitor) -}}
{{- end -}}

{{/* The beginning of all names: the release's, with the chart's unless it is in there. Room is left for endings. */}}
{{- define "berth.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $full = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{- /* A release's name may hold dots, and the cut may fall behind one. */ -}}
{{- $full | trunc 40 | trimSuffix "-" | trimSuffix "." -}}
{{- end -}}

{{/* The Deployment, and what belongs to it. */}}
{{- define "berth.operator" -}}
{{- printf "%s-operator" (include "berth.fullname" .) -}}
{{- end -}}

{{/* The name of a Service of the operator's, a list of the context and its ending: a DNS label, which holds no dots and begins with a letter. */}}
{{- define "berth.service" -}}
{{- $name := printf "%s-%s" (include "berth.operator" (first .)) (last .) | replace "." "-" -}}
{{- if regexMatch "^[0-9]" $name -}}
{{- fail (printf "%s is not a name of a Service; set fullnameOverride to a name that begins with a letter" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/*
The name of an object that is the whole cluster's, from the name that it would have in a namespace: two releases of one name
in two namespaces have two of it. A namespace's name holds no dot, so the last dot is where it begins, whatever the release is called.
*/}}
{{- define "berth.clusterWide" -}}
{{- $context := first . -}}
{{- printf "%s.%s" (last .) $context.Release.Namespace -}}
{{- end -}}

{{- define "berth.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "berth.operator" . -}}
{{- else -}}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty; set serviceAccount.name to the operator's service account" -}}
{{- end -}}
{{- end -}}

{{/* Never changes over upgrades: a Deployment's selector can't. */}}
{{- define "berth.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "berth.labels" -}}
{{ include "berth.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- if not (hasKey (default dict .Values.labels) "app.kubernetes.io/part-of") }}
app.kubernetes.io/part-of: berth
{{- end }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The same with those of one kind of objects, which win: a list of the context and these. A key that is there twice is no YAML. */}}
{{- define "berth.labelsWith" -}}
{{- mergeOverwrite (include "berth.labels" (first .) | fromYaml) (deepCopy (default dict (last .))) | toYaml -}}
{{- end -}}

{{/*
A released chart says in an annotation which image was released with it, by digest: no value, which --reuse-values would keep
for the next release, and which would win over a tag. It counts for the image of that name alone.
*/}}
{{- define "berth.image" -}}
{{- $global := default dict .Values.global -}}
{{- $released := default "" (index (default dict .Chart.Annotations) "berth.dev/image") -}}
{{- with .Values.image -}}
{{- $name := join "/" (compact (list (default .registry (trimSuffix "/" (default "" $global.imageRegistry))) .repository)) -}}
{{- if .digest -}}
{{- printf "%s@%s" $name .digest -}}
{{- else if and (not .tag) (hasPrefix (printf "%s@" $name) $released) -}}
{{- $released -}}
{{- else -}}
{{- printf "%s:%s" $name (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where people read docs/runbooks. A released chart names the pages of its version in an annotation, as it names its image. */}}
{{- define "berth.runbooks" -}}
{{- default (index (default dict .Chart.Annotations) "berth.dev/runbooks" | default "") (.Values.prometheusRule).runbookUrl | trimSuffix "/" -}}
{{- end -}}

{{/*
Annotations of the operator's Pods. A ready Pod stays ready when a NetworkPolicy cuts it off. A new one must fill its caches
behind the policy, so a wrong policy fails the rollout.
*/}}
{{- define "berth.podAnnotations" -}}
{{- $base := dict "kubectl.kubernetes.io/default-container" "berth" -}}
{{- if (.Values.networkPolicy).enabled -}}
{{- $given := dict -}}
{{- range $key, $value := .Values.networkPolicy -}}
{{- if $value -}}{{/* null is as good as an empty list */}}
{{- $_ := set $given $key $value -}}
{{- end -}}
{{- end -}}
{{- $_ := set $base "checksum/network-policy" (toYaml $given | sha256sum) -}}
{{- end -}}
{{- mergeOverwrite $base (deepCopy .Values.podAnnotations) | toYaml -}}
{{- end -}}

{{/* Secrets for registries, of this chart and of the charts that it is part of. */}}
{{- define "berth.imagePullSecrets" -}}
{{- $global := default dict .Values.global -}}
{{- $secrets := list -}}
{{- range concat (default (list) $global.imagePullSecrets) (default (list) .Values.imagePullSecrets) -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with uniq $secrets -}}
imagePullSecrets:
{{ toYaml . | indent 2 }}
{{- end -}}
{{- end -}}

{{/*
Labels of a hook's Pod: a list of the context and of the component that replaces the operator's, which all selectors use.
A mesh's sidecar never exits, so helm would wait for the Pod until its deadline. A hook needs only the API server, which is in no mesh.
*/}}
{{- define "berth.hookPodLabels" -}}
{{- $context := first . -}}
{{- $own := merge (dict "app.kubernetes.io/component" (last .) "sidecar.istio.io/inject" "false") (include "berth.selectorLabels" $context | fromYaml) -}}
{{- mergeOverwrite (include "berth.labels" $context | fromYaml) (deepCopy $context.Values.podLabels) $own | toYaml -}}
{{- end -}}

{{/*
The longest that the uninstall's Job runs: the time for draining, for stopping the operator, and for its own start. Without draining
less than a minute: after an install that failed, the image of the Job can't be pulled either. An attempt that was too short can be repeated.
*/}}
{{- define "berth.uninstallSeconds" -}}
{{- $drain := and .Values.crds.enabled (not .Values.crds.keep) | ternary .Values.uninstall.drainSeconds 0 -}}
{{- add $drain .Values.terminationGracePeriodSeconds 10 -}}
{{- end -}}

{{/* Annotations of a hook's Pod: no sidecar, as above, and nothing to scrape. */}}
{{- define "berth.hookPodAnnotations" -}}
{{- $annotations := dict -}}
{{- range $key, $value := .Values.podAnnotations -}}
{{- if not (hasPrefix "prometheus.io/" $key) -}}
{{- $_ := set $annotations $key $value -}}
{{- end -}}
{{- end -}}
{{- mergeOverwrite $annotations (dict "sidecar.istio.io/inject" "false" "linkerd.io/inject" "disabled") | toYaml -}}
{{- end -}}

{{/*
Where a hook's Pod may run: where the operator's may. Not what keeps operators apart (topologySpreadConstraints, affinity to Pods):
with a node for each of them there may be none left, and without the uninstall's Job helm removes nothing.
*/}}
{{- define "berth.hookScheduling" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (.Values.affinity).nodeAffinity }}
affinity:
  nodeAffinity:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{/* A probe: a list of the chart's and of the fields over it. A Pod with two handlers in one probe is refused, so one that is given takes the place of the chart's. */}}
{{- define "berth.probe" -}}
{{- $base := first . -}}
{{- $given := deepCopy (last .) -}}
{{- if or $given.exec $given.grpc $given.tcpSocket -}}
{{- $base = omit $base "httpGet" -}}
{{- end -}}
{{- toYaml (mergeOverwrite $base $given) -}}
{{- end -}}

{{- define "berth.podSecurityContext" -}}
{{- $base := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- toYaml (mergeOverwrite $base (deepCopy .Values.podSecurityContext)) -}}
{{- end -}}

{{- define "berth.securityContext" -}}
{{- $base := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- toYaml (mergeOverwrite $base (deepCopy .Values.securityContext)) -}}
{{- end -}}

{{/* The values that no schema can check: most of them are about one another. */}}
{{- define "berth.check" -}}
{{- include "berth.nulls" . -}}
{{- with .Values -}}
{{- if not .image.repository -}}
{{- fail "image.repository is empty, and there is no public image of Berth yet; build one from the Dockerfile, push it, and use --set image.repository=registry.example/berth" -}}
{{- end -}}
{{- if and .caBundle.configMap .caBundle.secret -}}
{{- fail "caBundle.configMap and caBundle.secret are both set; remove one of them" -}}
{{- end -}}
{{- if and (.webhook).enabled (not (.webhook).secret) -}}
{{- fail "webhook.enabled needs webhook.secret; set it to the Secret with the signing secrets" -}}
{{- end -}}
{{- $taken := dict "health.port" .health.port -}}
{{- range $block := list "metrics" "webhook" "console" -}}
{{- $given := default dict (get $.Values $block) -}}
{{- if $given.enabled -}}
{{- $name := printf "%s.port" $block -}}
{{- range $other, $port := $taken -}}
{{- if eq (int $given.port) (int $port) -}}
{{- fail (printf "%s and %s are both %d; use two ports" $name $other (int $port)) -}}
{{- end -}}
{{- end -}}
{{- $taken = set $taken $name $given.port -}}
{{- end -}}
{{- end -}}
{{- if and .metrics.serviceMonitor.enabled (not .metrics.enabled) -}}
{{- fail "metrics.serviceMonitor.enabled needs metrics.enabled; set it to true" -}}
{{- end -}}
{{- if and (dig "podMonitor" "enabled" false .metrics) (not .metrics.enabled) -}}
{{- fail "metrics.podMonitor.enabled needs metrics.enabled; set it to true" -}}
{{- end -}}
{{- if and (.prometheusRule).enabled (not .metrics.enabled) -}}
{{- fail "prometheusRule.enabled needs metrics.enabled; set it to true" -}}
{{- end -}}
{{- $labels := dict "labels" .labels "podLabels" .podLabels "metrics.serviceMonitor.labels" .metrics.serviceMonitor.labels -}}
{{- $labels = merge $labels (dict "metrics.podMonitor.labels" (.metrics.podMonitor).labels "prometheusRule.labels" (.prometheusRule).labels "grafanaDashboards.labels" (.grafanaDashboards).labels) -}}
{{- range $name, $given := $labels -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" "berth.dev/role" -}}
{{- if hasKey (default dict $given) $label -}}
{{- fail (printf "%s has %s, which the chart sets; remove it" $name $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $own := list -}}
{{- if or .proxy.http .proxy.https -}}
{{- $own = list "HTTP_PROXY" "HTTPS_PROXY" "NO_PROXY" -}}
{{- end -}}
{{- if or .caBundle.configMap .caBundle.secret -}}
{{- $own = append $own "NODE_EXTRA_CA_CERTS" -}}
{{- end -}}
{{- range .extraEnv -}}
{{- if has .name $own -}}
{{- fail (printf "extraEnv sets %s, which proxy or caBundle also sets; remove one of them" .name) -}}
{{- end -}}
{{- end -}}
{{- $words := join " " .extraArgs -}}
{{- $off := list (regexFind "--(no-leader-elect|leader-elect[= ]false)( |$)" $words | trim) -}}
{{- $elsewhere := list -}}
{{- range regexFindAll "--leader-elect-namespace[= ][^ ]*" $words -1 -}}
{{- if ne (regexReplaceAll "^[^= ]*[= ]" . "") $.Release.Namespace -}}
{{- $elsewhere = append $elsewhere "--leader-elect-namespace" -}}
{{- end -}}
{{- end -}}
{{- range .extraEnv -}}
{{- if and (eq .name "BERTH_LEADER_ELECT") (eq (toString .value) "false") -}}
{{- $off = append $off .name -}}
{{- else if and (eq .name "BERTH_LEADER_ELECT_NAMESPACE") .value (ne (toString .value) $.Release.Namespace) -}}
{{- $elsewhere = append $elsewhere .name -}}
{{- end -}}
{{- end -}}
{{- range compact $off -}}
{{- fail (printf "%s turns leader election off, but two operators run during a rolling update; remove it" .) -}}
{{- end -}}
{{- if .rbac.create -}}{{/* else who gives the rights decides where */}}
{{- range $elsewhere -}}
{{- fail (printf "%s: the chart gives permissions for Leases only in the release's namespace; remove the flag" .) -}}
{{- end -}}
{{- end -}}
{{- range $argument := .extraArgs -}}
{{- range $flag, $value := dict "namespace" "namespaces" "shards" "shards" "metrics-bind-address" "metrics.port" "health-probe-bind-address" "health.port" "console-bind-address" "console.enabled and console.port" "webhook-bind-address" "webhook.port" "webhook-secrets" "webhook.secret" "webhook-peers" "webhook.enabled and replicas" "log-level" "logLevel" "allowed-api-origins" "allowedApiOrigins" "api-cidrs" "apiCidrs" "cluster-dns-pods" "clusterDns.pods" "cluster-dns-cidrs" "clusterDns.cidrs" "allowed-in-templates" "podPolicy" "runtime-classes" "runtimeClasses" -}}
{{- if regexMatch (printf "^--%s(=.*)?$" $flag) $argument -}}
{{- fail (printf "extraArgs has --%s; set %s instead" $flag $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What every container of the operator's image is given: the way to both APIs. */}}
{{- define "berth.env" -}}
{{- with .Values.proxy -}}
{{- if or .http .https -}}
{{- with .http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
- name: NO_PROXY
  value: {{ join "," (compact (list "$(KUBERNETES_SERVICE_HOST)" "kubernetes.default.svc" .noProxy)) | quote }}
{{- end }}
{{- end }}
{{- if or .Values.caBundle.configMap .Values.caBundle.secret }}
- name: NODE_EXTRA_CA_CERTS
  value: /etc/berth/ca/{{ .Values.caBundle.key }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "berth.volumeMounts" -}}
{{- if or .Values.caBundle.configMap .Values.caBundle.secret }}
- name: ca-bundle
  mountPath: /etc/berth/ca
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "berth.volumes" -}}
{{- with .Values.caBundle -}}
{{- if .configMap }}
- name: ca-bundle
  configMap:
    name: {{ .configMap | quote }}
    items:
      - key: {{ .key | quote }}
        path: {{ .key | quote }}
{{- else if .secret }}
- name: ca-bundle
  secret:
    secretName: {{ .secret | quote }}
    items:
      - key: {{ .key | quote }}
        path: {{ .key | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of the operator alone: an uninstall takes no webhooks. */}}
{{- define "berth.webhookMount" -}}
{{- if (.Values.webhook).enabled }}
- name: webhook-secrets
  mountPath: /etc/berth/webhook
  readOnly: true
{{- end }}
{{- end -}}

{{- define "berth.webhookVolume" -}}
{{- if (.Values.webhook).enabled }}
- name: webhook-secrets
  secret:
    secretName: {{ .Values.webhook.secret | quote }}
{{- end }}
{{- end -}}

{{/* The endpoint of a ServiceMonitor or PodMonitor, from its values. */}}
{{- define "berth.endpoint" -}}
port: metrics
# The label namespace is the Environment's namespace, not the operator's.
honorLabels: true
{{- range $key := list "interval" "scheme" "tlsConfig" "relabelings" "metricRelabelings" }}
{{- with get $ $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end }}
