import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { ConfigError, errorText } from "../core/errors.ts";
import { isRecord } from "../core/json.ts";
import { YamlError, yamlDocuments } from "../core/yaml.ts";

/*
 * This file reads kubeconfigs without @kubernetes/client-node. Importing the library takes half a second and 90 MB. The
 * library ignores `tokenFile`, and refuses files of KUBECONFIG that repeat an entry, where kubectl uses the first.
 * plugin.ts imports it for credential plug-ins only.
 * Format: kubernetes.io/docs/reference/config-api/kubeconfig.v1.
 */

export interface ClusterEntry {
  readonly name: string;
  readonly server: string;
  readonly caData: string | undefined;
  readonly caFile: string | undefined;
  readonly tlsServerName: string | undefined;
  readonly proxyUrl: string | undefined;
  readonly insecureSkipTlsVerify: boolean;
  /** The cluster's extension `client.authentication.k8s.io/exec` for plug-ins, unchanged. */
  readonly execConfig: unknown;
}

/** The user that the API server treats as the sender of requests. */
export interface Impersonation {
  readonly user: string;
  readonly uid?: string;
  readonly groups?: readonly string[];
  /** Values by key, such as `scopes`. */
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

export interface UserEntry {
  readonly name: string;
  readonly token: string | undefined;
  readonly tokenFile: string | undefined;
  readonly certData: string | undefined;
  readonly certFile: string | undefined;
  readonly keyData: string | undefined;
  readonly keyFile: string | undefined;
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly impersonate: Impersonation | undefined;
  /** Unchanged from the file. */
  readonly exec: Fields | undefined;
  readonly authProvider: Fields | undefined;
}

export type Fields = Readonly<Record<string, unknown>>;

interface Named {
  readonly fields: Fields;
  /** Relative paths of an entry start at the folder of its file. */
  readonly folder: string;
}

/**
 * Merges kubeconfig files like kubectl (the first value wins) and resolves a context.
 * @param files missing files are skipped, unless they were `asked` for by name
 * @param wanted the context; undefined: the current one
 * @throws ConfigError
 */
export function readKubeconfigs(
  files: readonly string[],
  asked: boolean,
  wanted?: string,
): { cluster: ClusterEntry; user: UserEntry; namespace: string | undefined } {
  const entries = {
    clusters: new Map<string, Named>(),
    users: new Map<string, Named>(),
    contexts: new Map<string, Named>(),
  };
  let current = wanted;
  let found = 0;
  for (const file of files) {
    const document = readDocument(file, asked);
    if (document === undefined) continue;
    found += 1;
    current ??= text(document["current-context"]);
    collect(entries.clusters, document.clusters, "cluster", dirname(file));
    collect(entries.users, document.users, "user", dirname(file));
    collect(entries.contexts, document.contexts, "context", dirname(file));
  }
  const where = files.join(", ");
  if (found === 0) throw new ConfigError(`no file listed in KUBECONFIG exists: ${where}`);
  if (current === undefined)
    throw new ConfigError(`kubeconfig ${where} has no current-context; set it with kubectl config use-context NAME`);
  if (wanted !== undefined && !entries.contexts.has(wanted))
    throw new ConfigError(`kubeconfig ${where} has no context "${wanted}"; kubectl config get-contexts lists them`);
  const context = find(entries.contexts, current, "context", where).fields;
  const clusterName = text(context.cluster) ?? "";
  const userName = text(context.user);
  return {
    cluster: clusterOf(clusterName, find(entries.clusters, clusterName, "cluster", where)),
    user: userOf(userName ?? "", userName === undefined ? undefined : find(entries.users, userName, "user", where)),
    namespace: text(context.namespace),
  };
}

/** Returns `{}` for an empty file, and undefined if an optional file does not exist. */
function readDocument(file: string, mustExist: boolean): Fields | undefined {
  let content: string;
  try {
    content = readFileSync(file, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT" && !mustExist) return undefined;
    throw new ConfigError(`cannot read kubeconfig ${file}: ${errorText(cause)}`, { cause });
  }
  let document: unknown;
  try {
    [document = null] = yamlDocuments(content);
  } catch (error) {
    if (!(error instanceof YamlError)) throw error;
    throw new ConfigError(`kubeconfig ${file} is not valid YAML: ${error.message}`);
  }
  if (document === null) return {};
  if (!isRecord(document)) throw new ConfigError(`kubeconfig ${file} is not a YAML mapping`);
  return document;
}

function collect(into: Map<string, Named>, list: unknown, kind: string, folder: string): void {
  if (!Array.isArray(list)) return;
  for (const entry of list) {
    if (!isRecord(entry)) continue;
    const name = text(entry.name);
    const fields = isRecord(entry[kind]) ? entry[kind] : {};
    if (name !== undefined && !into.has(name)) into.set(name, { fields, folder });
  }
}

function find(entries: ReadonlyMap<string, Named>, name: string, kind: string, where: string): Named {
  const entry = entries.get(name);
  if (!entry) throw new ConfigError(`kubeconfig ${where} has no ${kind} "${name}", which its current context names`);
  return entry;
}

function clusterOf(name: string, { fields, folder }: Named): ClusterEntry {
  const server = text(fields.server);
  if (server === undefined) throw new ConfigError(`kubeconfig: cluster "${name}" has no server`);
  return {
    name,
    server,
    caData: text(fields["certificate-authority-data"]),
    caFile: pathIn(folder, fields["certificate-authority"]),
    tlsServerName: text(fields["tls-server-name"]),
    proxyUrl: text(fields["proxy-url"]),
    insecureSkipTlsVerify: fields["insecure-skip-tls-verify"] === true,
    execConfig: extensionOf(fields, EXEC_EXTENSION),
  };
}

/** The cluster's extension with data for plug-ins. */
const EXEC_EXTENSION = "client.authentication.k8s.io/exec";

function extensionOf({ extensions }: Fields, name: string): unknown {
  const found: unknown = Array.isArray(extensions) && extensions.find((each) => isRecord(each) && each.name === name);
  return isRecord(found) ? found.extension : undefined;
}

function userOf(name: string, entry: Named | undefined): UserEntry {
  const { fields, folder } = entry ?? { fields: {} as Fields, folder: "" };
  return {
    name,
    token: text(fields.token),
    tokenFile: pathIn(folder, fields.tokenFile),
    certData: text(fields["client-certificate-data"]),
    certFile: pathIn(folder, fields["client-certificate"]),
    keyData: text(fields["client-key-data"]),
    keyFile: pathIn(folder, fields["client-key"]),
    username: text(fields.username),
    password: text(fields.password),
    impersonate: impersonationOf(name, fields),
    exec: isRecord(fields.exec) ? withCommandIn(folder, fields.exec) : undefined,
    authProvider: isRecord(fields["auth-provider"]) ? fields["auth-provider"] : undefined,
  };
}

/**
 * Reads the impersonation. Other fields without a user are refused, as kubectl does: their author did not mean to act
 * without impersonation. A value of another type is refused too, since it would be sent as an empty value.
 */
function impersonationOf(name: string, fields: Fields): Impersonation | undefined {
  const refused = (wanted: string, field: string) =>
    new ConfigError(`kubeconfig: user "${name}" has no ${wanted} in ${field}`);
  const string = (field: string) => {
    const value = fields[field] ?? "";
    if (typeof value !== "string") throw refused("string (quote a number)", field);
    return text(value);
  };
  const strings = (value: unknown, wanted: string, field: string) => {
    const list = value ?? [];
    if (!Array.isArray(list) || !list.every((each) => typeof each === "string")) throw refused(wanted, field);
    return list;
  };
  const user = string("as");
  const uid = string("as-uid");
  const groups = strings(fields["as-groups"], "list of strings", "as-groups");
  const extraFields = fields["as-user-extra"] ?? {};
  const byKey = "mapping to lists of strings";
  if (!isRecord(extraFields)) throw refused(byKey, "as-user-extra");
  const extra = Object.fromEntries(
    Object.entries(extraFields).map(([key, values]) => [key, strings(values, byKey, "as-user-extra")]),
  );
  const isMore = uid !== undefined || groups.length > 0 || Object.keys(extra).length > 0;
  if (user === undefined) {
    if (isMore) throw new ConfigError(`kubeconfig: user "${name}" has as-uid, as-groups or as-user-extra without as`);
    return undefined;
  }
  return {
    user,
    ...(uid !== undefined && { uid }),
    ...(groups.length > 0 && { groups }),
    ...(Object.keys(extra).length > 0 && { extra }),
  };
}

/** A command with a slash is relative to the kubeconfig's folder; others are searched in PATH. */
function withCommandIn(folder: string, exec: Fields): Fields {
  const command = text(exec.command);
  return command?.includes("/") ? { ...exec, command: resolve(folder, command) } : exec;
}

function pathIn(folder: string, value: unknown): string | undefined {
  const path = text(value);
  return path === undefined ? undefined : resolve(folder, path);
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
