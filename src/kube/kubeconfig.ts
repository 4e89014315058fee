import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse } from "yaml";
import { ConfigError } from "../core/errors.ts";
import { isRecord } from "../core/record.ts";

/*
 * Kubeconfig files are read here and not by @kubernetes/client-node: importing it takes half a second and 90 MB, it
 * overlooks `tokenFile`, and it refuses files of KUBECONFIG that repeat an entry, where kubectl takes the first.
 * It is imported for credential plug-ins only (plugin.ts). Format: kubernetes.io/docs/reference/config-api/kubeconfig.v1.
 */

export interface ClusterEntry {
  readonly name: string;
  readonly server: string;
  readonly caData: string | undefined;
  readonly caFile: string | undefined;
  readonly tlsServerName: string | undefined;
  readonly proxyUrl: string | undefined;
  readonly insecureSkipTlsVerify: boolean;
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
  readonly impersonateUser: string | undefined;
  /** As in the file. */
  readonly exec: Fields | undefined;
  readonly authProvider: Fields | undefined;
}

export type Fields = Readonly<Record<string, unknown>>;

interface Named {
  readonly fields: Fields;
  /** Relative paths of an entry count from the file it stands in. */
  readonly folder: string;
}

/** Merges kubeconfig files as kubectl does (the first to say something wins) and resolves the current context. */
export function readKubeconfigs(files: readonly string[]): {
  cluster: ClusterEntry;
  user: UserEntry;
  namespace: string | undefined;
} {
  const entries = {
    clusters: new Map<string, Named>(),
    users: new Map<string, Named>(),
    contexts: new Map<string, Named>(),
  };
  let current: string | undefined;
  for (const file of files) {
    const document = readDocument(file);
    current ??= text(document["current-context"]);
    collect(entries.clusters, document.clusters, "cluster", dirname(file));
    collect(entries.users, document.users, "user", dirname(file));
    collect(entries.contexts, document.contexts, "context", dirname(file));
  }
  const where = files.join(", ");
  if (current === undefined)
    throw new ConfigError(`kubeconfig ${where} has no current-context: kubectl config use-context NAME`);
  const context = find(entries.contexts, current, "context", where).fields;
  const clusterName = text(context.cluster) ?? "";
  const userName = text(context.user);
  return {
    cluster: clusterOf(clusterName, find(entries.clusters, clusterName, "cluster", where)),
    user: userOf(userName ?? "", userName === undefined ? undefined : find(entries.users, userName, "user", where)),
    namespace: text(context.namespace),
  };
}

function readDocument(file: string): Fields {
  let document: unknown;
  try {
    document = parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw new ConfigError(`cannot read kubeconfig ${file}`, { cause });
  }
  if (!isRecord(document)) throw new ConfigError(`kubeconfig ${file} is no YAML mapping`);
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
  };
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
    impersonateUser: text(fields.as),
    exec: isRecord(fields.exec) ? withCommandIn(folder, fields.exec) : undefined,
    authProvider: isRecord(fields["auth-provider"]) ? fields["auth-provider"] : undefined,
  };
}

/** A command with a slash counts from the kubeconfig's folder, any other is looked for in PATH. */
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
