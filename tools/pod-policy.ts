/**
 * The chart's ValidatingAdmissionPolicy for Environments, in CEL: the rules of src/policy/policy-rules.ts, and the
 * origins of the Work API that the operator allows.
 */
import { stringify } from "yaml";
import { DEFAULT_RUNTIME_CLASSES } from "../src/api/isolation.ts";
import { celString } from "../src/api/rule.ts";
import { POLICY_FLAG, POLICY_VALUE } from "../src/policy/pod-policy.ts";
import { CEL_ACCOUNT } from "../src/policy/policy-looks.ts";
import { celOfRule, POLICY_KEYS, POLICY_RULES } from "../src/policy/policy-rules.ts";
import { CEL_VARIABLES } from "../src/policy/template-path.ts";

/** Placeholders in the rendered YAML for what helm fills in. */
const ALLOWED = "ALLOWED-IN-TEMPLATES";
const ORIGINS = "NAMED-ORIGINS";

/** The policy ignores unchanged fields, so that Environments can still be paused and finalizers removed. */
const isNew = (...paths: readonly string[]) => {
  const changed = paths.map((path) => `dyn(object).spec.${path} != dyn(oldObject).spec.${path}`);
  return `request.operation == 'CREATE' || ${changed.join(" || ")}`;
};
const TEMPLATES = ["?sessions.?template", "?workers.?template"];
const { template, ...BELOW_TEMPLATE } = CEL_VARIABLES;

/** The message about an address that is not allowed, in CEL. */
const ORIGIN_MESSAGE = `'spec.api.baseUrl: the operator may not send keys to ' + variables.baseUrl + ' (allowed: ' + variables.allowedOrigins.join(', ') + ${celString("); correct it, or add it to the chart's allowedApiOrigins.")}`;

const spec = {
  failurePolicy: "Fail",
  matchConstraints: {
    resourceRules: [
      { apiGroups: ["berth.dev"], apiVersions: ["*"], operations: ["CREATE", "UPDATE"], resources: ["environments"] },
    ],
  },
  matchConditions: [{ name: "new-template", expression: isNew(...TEMPLATES) }],
  variables: [
    { name: "baseUrl", expression: "dyn(object).spec.?api.?baseUrl.orValue('')" },
    { name: "allowedOrigins", expression: ORIGINS },
    { name: "template", expression: template },
    ...Object.entries(BELOW_TEMPLATE).map(([name, expression]) => ({ name, expression })),
    { name: "account", expression: CEL_ACCOUNT },
    { name: "allowed", expression: ALLOWED },
    // Each variable has its own rule, because the API server limits the cost of each expression.
    ...POLICY_KEYS.map((key) => ({ name: fits(key), expression: celOfRule(key) })),
    // The address is immutable.
    {
      name: "originFits",
      expression: "request.operation != 'CREATE' || variables.baseUrl in variables.allowedOrigins",
    },
    {
      name: "notAllowed",
      expression: `[${POLICY_KEYS.map((key) => `variables.${fits(key)} ? '' : ${wordsOf(key)}`).join(", ")}].filter(words, words != '')`,
    },
    { name: "field", expression: `has(dyn(object).spec.workers) ? 'spec.workers.template' : 'spec.sessions.template'` },
  ],
  // One validation for all rules: of several, the API server reports only the first.
  validations: [
    {
      expression: "variables.originFits && variables.notAllowed.size() == 0",
      messageExpression: `((variables.originFits ? [] : [${ORIGIN_MESSAGE}]) + (variables.notAllowed.size() == 0 ? [] : [variables.field + ': not allowed: ' + variables.notAllowed.join('; ') + ${celString(`; remove it, or allow it with the chart's ${POLICY_VALUE}.`)}])).join(' ')`,
      message: `the template or spec.api.baseUrl is not allowed; see the chart's ${POLICY_VALUE} and allowedApiOrigins`,
      reason: "Forbidden",
    },
  ],
};

/** The variable that says whether the template fits a rule. */
function fits(key: (typeof POLICY_KEYS)[number]): string {
  return `${key}Fits`;
}

/** What a rule does not allow, in CEL. */
function wordsOf(key: (typeof POLICY_KEYS)[number]): string {
  const { kind, about } = POLICY_RULES[key];
  const value = `${about} (${POLICY_VALUE}.${key}=`;
  if (kind === "switch") return celString(`${value}false)`);
  return `${celString(`${value}[`)} + variables.allowed.${key}.join(', ') + '])'`;
}

const yamlOf = (value: unknown) => stringify(value, { lineWidth: 0, aliasDuplicateObjects: false });

const words = (kind: "switch" | "list") =>
  POLICY_KEYS.filter((key) => (POLICY_RULES[key].kind === "switch") === (kind === "switch"))
    .map((key) => `"${key}"`)
    .join(" ");

/** The runtime class of each isolation: values of an older chart have none. */
const isolating = Object.entries(DEFAULT_RUNTIME_CLASSES)
  .map(([isolation, name]) => `(default "${name}" (get $classes "${isolation}"))`)
  .join(" ");

/**
 * The file in the chart's templates.
 * @param notice says how the file is generated
 */
export function podPolicyTemplate(notice: string): string {
  const rendered = yamlOf({ spec })
    .replaceAll("{{", '{{ "{{" }}')
    .replace(ORIGINS, "{{ toJson .Values.allowedApiOrigins | quote }}")
    .replace(ALLOWED, '{{ include "berth.allowed" . | quote }}');
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
{{/* The same, with what the operator always allows: the runtime classes of isolation. */}}
{{- define "berth.allowed" -}}
{{- $allowed := include "berth.allowedInTemplates" . | fromJson -}}
{{- $classes := default dict .Values.runtimeClasses -}}
{{- $isolating := list ${isolating} -}}
{{- $_ := set $allowed "runtimeClasses" (concat $isolating $allowed.runtimeClasses | uniq) -}}
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
{{- $name := include "berth.clusterWide" (list . (printf "%s-pod-policy" (include "berth.fullname" .))) }}
# Refuses at admission what the operator would refuse of a Pod template and of the Work API's address.
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
