/**
 * The chart's ValidatingAdmissionPolicy for Environments: the rules of src/policy/policy-rules.ts and api-origins.ts, in
 * CEL.
 */
import { stringify } from "yaml";
import { POLICY_FLAG, POLICY_VALUE } from "../src/policy/pod-policy.ts";
import { CEL_ACCOUNT } from "../src/policy/policy-looks.ts";
import { celOfRule, POLICY_KEYS, POLICY_RULES } from "../src/policy/policy-rules.ts";
import { CEL_VARIABLES } from "../src/policy/template-path.ts";
import { originRule, originVariables } from "./api-origins.ts";

/** Placeholders in the rendered YAML for what helm fills in. */
const ALLOWED = "ALLOWED-IN-TEMPLATES";
const ORIGINS = "NAMED-ORIGINS";
const ORIGINS_SHOWN = "ORIGINS-IN-WORDS";
const allowedIn = (key: string) => `ALLOWED-${key}-`;

/** The policy ignores unchanged fields, so that Environments can still be paused and finalizers removed. */
const isNew = (...paths: readonly string[]) => {
  const changed = paths.map((path) => `dyn(object).spec.${path} != dyn(oldObject).spec.${path}`);
  return `request.operation == 'CREATE' || ${changed.join(" || ")}`;
};
const TEMPLATES = ["?sessions.?template", "?workers.?template"];
const ADDRESS = "?api.?baseUrl";
const { template, ...BELOW_TEMPLATE } = CEL_VARIABLES;

const spec = {
  failurePolicy: "Fail",
  matchConstraints: {
    resourceRules: [
      { apiGroups: ["berth.dev"], apiVersions: ["*"], operations: ["CREATE", "UPDATE"], resources: ["environments"] },
    ],
  },
  matchConditions: [{ name: "new-template-or-address", expression: isNew(...TEMPLATES, ADDRESS) }],
  variables: [
    { name: "newAddress", expression: isNew(ADDRESS) },
    ...originVariables(ORIGINS),
    { name: "newTemplate", expression: isNew(...TEMPLATES) },
    { name: "template", expression: `variables.newTemplate ? ${template} : dyn({'spec': {}})` },
    ...Object.entries(BELOW_TEMPLATE).map(([name, expression]) => ({ name, expression })),
    { name: "account", expression: CEL_ACCOUNT },
    { name: "allowed", expression: ALLOWED },
  ],
  validations: [
    originRule(ORIGINS_SHOWN),
    ...POLICY_KEYS.map((key) => ({ expression: celOfRule(key), message: messageOf(key), reason: "Forbidden" })),
  ],
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

/**
 * The file in the chart's templates.
 * @param notice says how the file is generated
 */
export function podPolicyTemplate(notice: string): string {
  const rendered = yamlOf({ spec })
    .replaceAll("{{", '{{ "{{" }}')
    .replace(ORIGINS, '{{ include "berth.originsInSmallLetters" . | quote }}')
    .replace(ORIGINS_SHOWN, '{{ default "any with https at a public address" (join ", " .Values.allowedApiOrigins) }}')
    .replace(ALLOWED, '{{ include "berth.allowedInTemplates" . | quote }}')
    .replaceAll(/ALLOWED-(\w+)-/g, '{{ default "none" (join ", " (index $allowed "$1")) }}');
  return `{{- /* ${notice} */}}
{{- include "berth.nulls" . }}
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
{{- define "berth.originsInSmallLetters" -}}
{{- $origins := list -}}
{{- range .Values.allowedApiOrigins -}}
{{- $origins = append $origins (lower .) -}}
{{- end -}}
{{- toJson $origins -}}
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
# Says at admission already what the operator would say of an Environment's Pod template and of its Work API.
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
