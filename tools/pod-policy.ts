/** The chart's ValidatingAdmissionPolicy over Environments: the rules of src/api/policy-rules.ts in CEL. */
import { stringify } from "yaml";
import { POLICY_FLAG, POLICY_VALUE } from "../src/api/pod-policy.ts";
import { CEL_ACCOUNT } from "../src/api/policy-looks.ts";
import { celOfRule, POLICY_KEYS, POLICY_RULES } from "../src/api/policy-rules.ts";
import { CEL_VARIABLES } from "../src/api/template-path.ts";

/** Stands in the rendered YAML for what helm fills in. */
const ALLOWED = "ALLOWED-IN-TEMPLATES";
const allowedIn = (key: string) => `ALLOWED-${key}-`;

/** Templates that are as they were are none of its business: Environments may be paused and finalizers taken off. */
const NEW_TEMPLATE = ["sessions", "workers"]
  .map((mode) => {
    const template = (object: string) => `dyn(${object}).spec.?${mode}.?template`;
    return `${template("object")} != ${template("oldObject")}`;
  })
  .join(" || ");

const spec = {
  failurePolicy: "Fail",
  matchConstraints: {
    resourceRules: [
      { apiGroups: ["berth.dev"], apiVersions: ["*"], operations: ["CREATE", "UPDATE"], resources: ["environments"] },
    ],
  },
  matchConditions: [{ name: "new-template", expression: `request.operation == 'CREATE' || ${NEW_TEMPLATE}` }],
  variables: [
    ...Object.entries(CEL_VARIABLES).map(([name, expression]) => ({ name, expression })),
    { name: "account", expression: CEL_ACCOUNT },
    { name: "allowed", expression: ALLOWED },
  ],
  validations: POLICY_KEYS.map((key) => ({
    expression: celOfRule(key),
    message: messageOf(key),
    reason: "Forbidden",
  })),
};

function messageOf(key: (typeof POLICY_KEYS)[number]): string {
  const { kind, about } = POLICY_RULES[key];
  const isSwitch = kind === "switch";
  const allowed = isSwitch ? "" : ` (allowed: ${allowedIn(key)})`;
  const value = `${POLICY_VALUE}.${key}${isSwitch ? "=true" : ""}`;
  return `the operator's policy for Pods does not allow ${about}${allowed}: leave it out, or have it allowed by the chart's value ${value}`;
}

const yamlOf = (value: unknown) => stringify(value, { lineWidth: 0, aliasDuplicateObjects: false });

const words = (kind: "switch" | "list") =>
  POLICY_KEYS.filter((key) => (POLICY_RULES[key].kind === "switch") === (kind === "switch"))
    .map((key) => `"${key}"`)
    .join(" ");

/** The file in the chart's templates. `notice` says where it comes from. */
export function podPolicyTemplate(notice: string): string {
  const rendered = yamlOf({ spec })
    .replaceAll("{{", '{{ "{{" }}')
    .replace(ALLOWED, '{{ include "berth.allowedInTemplates" . | quote }}')
    .replaceAll(/ALLOWED-(\w+)-/g, '{{ default "none" (join ", " (index $allowed "$1")) }}');
  return `{{- /* ${notice} */}}
{{/* What templates may have, by rule: lists of names. A switch that is on allows all: older values may lack any of them. */}}
{{- define "berth.allowedInTemplates" -}}
{{- $given := default dict .Values.${POLICY_VALUE} -}}
{{- $allowed := dict -}}
{{- range $key := list ${words("switch")} -}}
{{- $_ := set $allowed $key (ternary (list "*") (list) (eq (toString (get $given $key)) "true")) -}}
{{- end -}}
{{- range $key := list ${words("list")} -}}
{{- $_ := set $allowed $key (default (list) (get $given $key)) -}}
{{- end -}}
{{- toJson $allowed -}}
{{- end -}}
{{/* The same as flags of the operator, a list. */}}
{{- define "berth.podPolicyFlags" -}}
{{- $given := default dict .Values.${POLICY_VALUE} -}}
{{- range $key, $items := include "berth.allowedInTemplates" . | fromJson }}
{{- range $item := $items }}
- {{ printf "--${POLICY_FLAG}=%s%s" $key (ternary "" (printf "=%s" $item) (kindIs "bool" (get $given $key))) | quote }}
{{- end }}
{{- end }}
{{- end -}}
{{- if ne (toString (get (default dict .Values.admissionPolicy) "enabled")) "false" }}
{{- $allowed := include "berth.allowedInTemplates" . | fromJson }}
{{- $name := include "berth.clusterWide" (list . (printf "%s-pod-policy" (include "berth.fullname" .))) }}
# Says at admission already what the operator would say of an Environment's Pod template.
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- include "berth.labels" . | nindent 4 }}
${rendered}---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "berth.labels" . | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
  {{- with .Values.namespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
        - key: kubernetes.io/metadata.name
          operator: In
          values:
            {{- toYaml . | nindent 12 }}
  {{- end }}
{{- end }}
`;
}
