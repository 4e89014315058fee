import { stringify } from "yaml";

/** How a kubeconfig proves who its user is. */
export type KubeconfigIdentity =
  | { readonly token: string }
  /** PEM texts. */
  | { readonly certificate: string; readonly key: string };

/** A kubeconfig with one context that needs no other file. `ca` is a PEM text. */
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
