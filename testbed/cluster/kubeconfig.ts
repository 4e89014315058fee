import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import type { KeyPair } from "./certificate.ts";

/** How a kubeconfig authenticates its user. */
export type KubeconfigIdentity = { readonly token: string } | KeyPair;

/** Returns the file for a user's kubeconfig in a folder. User names contain colons and slashes. */
export function kubeconfigFile(dir: string, user: string): string {
  return join(dir, `${user.replaceAll(/[^A-Za-z0-9._-]/g, "_")}.kubeconfig`);
}

/** Writes a kubeconfig with a client certificate to its own file and returns the path. */
export async function writeCertificateKubeconfig(
  dir: string,
  server: string,
  ca: string,
  user: string,
  pair: KeyPair,
): Promise<string> {
  const path = kubeconfigFile(dir, `${user}-${randomBytes(4).toString("hex")}`);
  await writeFile(path, renderKubeconfig(server, ca, user, pair), { mode: 0o600 });
  return path;
}

/** Renders a kubeconfig with one context that needs no other file. `ca` is in PEM. */
export function renderKubeconfig(server: string, ca: string, user: string, identity: KubeconfigIdentity): string {
  const cluster = "berth-testbed";
  const proof =
    "token" in identity
      ? { token: identity.token }
      : { "client-certificate-data": base64(identity.certificate), "client-key-data": base64(identity.key) };
  return stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: cluster, cluster: { server, "certificate-authority-data": base64(ca) } }],
    users: [{ name: user, user: proof }],
    contexts: [{ name: cluster, context: { cluster, user } }],
    "current-context": cluster,
  });
}

function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}
