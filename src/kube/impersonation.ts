import type { Impersonation } from "./kubeconfig.ts";

/** What a header's name may hold but `%`, which begins an escape; RFC 9110, token. */
const LEGAL = /[!#$&'*+.^_`|~0-9A-Za-z-]/;

/** As client-go sends it (transport/round_trippers.go). */
export function impersonationHeaders(as: Impersonation): Record<string, string | string[]> {
  const { user, uid, groups = [], extra = {} } = as;
  const headers: Record<string, string | string[]> = { "impersonate-user": asHeader(user) };
  if (uid !== undefined) headers["impersonate-uid"] = asHeader(uid);
  if (groups.length > 0) headers["impersonate-group"] = groups.map(asHeader);
  for (const [key, values] of Object.entries(extra)) {
    if (values.length > 0) headers[`impersonate-extra-${escaped(key)}`] = values.map(asHeader);
  }
  return headers;
}

function escaped(key: string): string {
  const bytes = [...Buffer.from(key, "utf8")];
  return bytes
    .map((byte) => {
      const char = String.fromCharCode(byte);
      return LEGAL.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
    })
    .join("");
}

/** Node writes a header byte by character; the API server reads UTF-8. */
function asHeader(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}
