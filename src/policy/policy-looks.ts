import { isRecord } from "../core/json.ts";
import { type Place, placesOf, type TemplatePath } from "./template-path.ts";

/** A check of the values at a path, in TypeScript and in CEL. */
export interface Look {
  readonly at: TemplatePath;
  /** The items that need permission; empty if there are none. Switches return "". */
  readonly items: (place: Place, template: unknown) => readonly string[];
  /** CEL: true if nothing needs permission, or all of it is in `allowed`, a list of strings. */
  readonly cel: (value: string, allowed: string) => string;
}

/** Matches all names in a list. */
export const ANY = "*";

const quoted = (words: readonly string[]) => `[${words.map((word) => `'${word}'`).join(", ")}]`;
const isOn = (allowed: string) => `'${ANY}' in ${allowed}`;
const inList = (item: string, allowed: string) => `${item} in ${allowed} || ${isOn(allowed)}`;

/** Requires a switch, or a word in a list, for the boolean true. */
export const whenTrue = (at: TemplatePath, word = ""): Look => ({
  at,
  items: ({ value }) => (value === true ? [word] : []),
  cel: (value, allowed) => `${value} != true || ${word === "" ? isOn(allowed) : inList(`'${word}'`, allowed)}`,
});

const isOtherThan = (value: unknown, harmless: readonly string[]): value is string =>
  typeof value === "string" && value !== "" && !harmless.includes(value);
const celOtherThan = (value: string, harmless: readonly string[]) =>
  `type(${value}) != string || ${value} in ${quoted(["", ...harmless])}`;

/** Requires a switch for a non-empty string that is not listed as harmless. */
export const otherThan = (at: TemplatePath, harmless: readonly string[] = []): Look => ({
  at,
  items: ({ value }) => (isOtherThan(value, harmless) ? [""] : []),
  cel: (value, allowed) => `${celOtherThan(value, harmless)} || ${isOn(allowed)}`,
});

/** Requires an allowed name for a non-empty string that is not listed as harmless. */
export const named = (at: TemplatePath, harmless: readonly string[] = []): Look => ({
  at,
  items: ({ value }) => (isOtherThan(value, harmless) ? [value] : []),
  cel: (value, allowed) => `${celOtherThan(value, harmless)} || ${inList(value, allowed)}`,
});

/** Requires a switch for one string. */
export const saying = (at: TemplatePath, word: string): Look => ({
  at,
  items: ({ value }) => (value === word ? [""] : []),
  cel: (value, allowed) => `${value} != '${word}' || ${isOn(allowed)}`,
});

/** Requires a switch for a number other than 0. */
export const nonZero = (at: TemplatePath): Look => ({
  at,
  items: ({ value }) => (value === 0 ? [] : [""]),
  cel: (value, allowed) => `${value} == null || ${value} == 0 || ${isOn(allowed)}`,
});

/** Container runtimes accept a capability in any case, with or without CAP_. */
const capabilityOf = (text: string) => text.toUpperCase().replace(/^CAP_/, "");
export const capability = (at: TemplatePath): Look => ({
  at,
  items: ({ value }) => (typeof value === "string" ? [capabilityOf(value)] : []),
  cel: (value, allowed) => {
    const upper = `${value}.upperAscii()`;
    return `type(${value}) != string || ${inList(`(${upper}.startsWith('CAP_') ? ${upper}.substring(4) : ${upper})`, allowed)}`;
  },
});

const BACKSTEP = "(^|/)[.][.](/|$)";

/** Whether a path is one of these folders or below it, without `..` segments. */
export function isBelow(path: string, folders: readonly string[]): boolean {
  if (new RegExp(BACKSTEP).test(path)) return false;
  return folders.some((folder) => folder === "/" || path === folder || path.startsWith(`${folder}/`));
}

export const folder = (at: TemplatePath): Look => ({
  at,
  items: ({ value }) => (typeof value === "string" ? [value] : []),
  cel: (value, allowed) =>
    `type(${value}) != string || (!${value}.matches('${BACKSTEP}') && ${allowed}.exists(p, p == '/' || ${value} == p || ${value}.startsWith(p + '/')))`,
});

/** Sources of volumes in the Pod itself or in its namespace, and those with their own rules. */
export const VOLUME_KINDS = [
  "configMap",
  "downwardAPI",
  "emptyDir",
  "ephemeral",
  "image",
  "persistentVolumeClaim",
  "projected",
  "secret",
];
const NO_OTHER_KIND = ["name", ...VOLUME_KINDS, "csi", "hostPath"];

export const otherKind = (at: TemplatePath): Look => ({
  at,
  items: ({ value }) =>
    isRecord(value) ? Object.keys(value).filter((kind) => !NO_OTHER_KIND.includes(kind) && value[kind] !== null) : [],
  cel: (value, allowed) =>
    `type(${value}) != map || ${value}.all(k, k in ${quoted(NO_OTHER_KIND)} || ${value}[k] == null || ${inList("k", allowed)})`,
});

/** Prefix of the taints of control plane and etcd nodes. */
export const CONTROL_PLANE_TAINTS = "node-role.kubernetes.io/";

const keyOf = (toleration: Readonly<Record<string, unknown>>) =>
  typeof toleration["key"] === "string" ? toleration["key"] : "";

/** A toleration without a key tolerates all taints. */
export const toleration = (at: TemplatePath): Look => ({
  at,
  items: ({ value }) => {
    if (!isRecord(value)) return [];
    const key = keyOf(value);
    return key === "" ? [ANY] : key.startsWith(CONTROL_PLANE_TAINTS) ? [key] : [];
  },
  cel: (value, allowed) =>
    `type(${value}) != map || ${isOn(allowed)} || (has(${value}.key) && type(${value}.key) == string && ${value}.key != '' && (!${value}.key.startsWith('${CONTROL_PLANE_TAINTS}') || ${value}.key in ${allowed}))`,
});

/** The service account that a Pod gets by default. Naming it needs no permission. */
export const DEFAULT_ACCOUNT = "default";

function accountOf(template: unknown): string {
  for (const path of ["@pod.serviceAccountName", "@pod.serviceAccount"]) {
    const [found] = placesOf(template, path);
    if (typeof found?.value === "string" && found.value !== "") return found.value;
  }
  return DEFAULT_ACCOUNT;
}

const celAccountIn = (field: string) => `has(${field}) && type(${field}) == string && ${field} != '' ? ${field}`;

/** CEL of the variable `account`, which some rules use in addition to the values at paths. */
export const CEL_ACCOUNT = `${celAccountIn("variables.pod.serviceAccountName")} : ${celAccountIn("variables.pod.serviceAccount")} : '${DEFAULT_ACCOUNT}'`;

/** Requires an allowed service account for a token, or another proof of the Pod's identity. */
export const tokenWhen = (
  at: TemplatePath,
  holds: (value: unknown) => boolean,
  cel: (value: string) => string,
): Look => ({
  at,
  items: ({ value }, template) => (holds(value) ? [accountOf(template)] : []),
  cel: (value, allowed) => `${cel(value)} || ${inList("variables.account", allowed)}`,
});

const APPARMOR_ANNOTATIONS = "container.apparmor.security.beta.kubernetes.io/";
/** The AppArmor annotation from before Kubernetes 1.30, which still has an effect. */
export const apparmorAnnotations: Look = {
  at: "metadata.annotations",
  items: ({ value }) =>
    isRecord(value) &&
    Object.entries(value).some(([key, profile]) => key.startsWith(APPARMOR_ANNOTATIONS) && profile === "unconfined")
      ? [""]
      : [],
  cel: (value, allowed) =>
    `type(${value}) != map || ${isOn(allowed)} || ${value}.all(k, !k.startsWith('${APPARMOR_ANNOTATIONS}') || ${value}[k] != 'unconfined')`,
};
