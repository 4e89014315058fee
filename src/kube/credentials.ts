import { readFile } from "node:fs/promises";
import type { Clock } from "../core/clock.ts";
import type { Impersonation } from "./kubeconfig.ts";

/** Keys and certificates of a TLS connection, as PEM texts. */
export interface TlsMaterial {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
  /** False only if a kubeconfig sets insecure-skip-tls-verify. */
  readonly rejectUnauthorized?: boolean;
}

/** How requests authenticate. Several may be set, such as a certificate and a token. */
export interface Auth {
  readonly token?: string;
  /** Read repeatedly: bound service account tokens are replaced about every hour. Takes precedence over `token`. */
  readonly tokenFile?: string;
  readonly basic?: { readonly username: string; readonly password: string };
  /** PEM. */
  readonly cert?: string;
  readonly key?: string;
  /** A plug-in (exec, OIDC). `fresh` requests new credentials instead of cached ones. */
  readonly plugin?: (fresh: boolean) => Promise<PluginCredentials>;
  readonly impersonate?: Impersonation;
}

export interface PluginCredentials {
  readonly authorization?: string;
  readonly cert?: string;
  readonly key?: string;
}

/** A list is sent as one header line per value. */
export type RequestHeaders = Record<string, string | string[]>;

/** Headers and client certificate of one request. */
export interface RequestCredentials {
  readonly headers: RequestHeaders;
  readonly cert?: string;
  readonly key?: string;
}

/**
 * client-go reads a token file again after this time (transport/token_source.go). The kubelet replaces the file long
 * before the token expires.
 */
const TOKEN_FILE_TTL_MS = 60_000;

/** The current credentials of a process. */
export class Credentials {
  readonly #auth: Auth;
  readonly #clock: Clock;
  #fileToken: { token: string; readAt: number } | undefined;

  constructor(auth: Auth, clock: Clock) {
    this.#auth = auth;
    this.#clock = clock;
  }

  /** Whether fresh credentials can help after a 401. */
  get refreshable(): boolean {
    return this.#auth.tokenFile !== undefined || this.#auth.plugin !== undefined;
  }

  /** @param fresh after a 401: ignores cached credentials. Throws errors of reading a file or of a plug-in. */
  async current(fresh = false): Promise<RequestCredentials> {
    const { basic, cert, key, plugin, impersonate } = this.#auth;
    const external = plugin && (await plugin(fresh));
    const token = await this.#token(fresh);
    const headers: RequestHeaders = impersonate === undefined ? {} : impersonationHeaders(impersonate);
    if (external?.authorization !== undefined) headers.authorization = external.authorization;
    else if (token !== undefined) headers.authorization = `Bearer ${token}`;
    else if (basic) headers.authorization = `Basic ${base64(`${basic.username}:${basic.password}`)}`;
    const identity = external?.cert === undefined ? { cert, key } : { cert: external.cert, key: external.key };
    return {
      headers,
      ...(identity.cert === undefined ? {} : { cert: identity.cert }),
      ...(identity.key === undefined ? {} : { key: identity.key }),
    };
  }

  async #token(fresh: boolean): Promise<string | undefined> {
    const { token, tokenFile } = this.#auth;
    if (tokenFile === undefined) return token;
    const now = this.#clock.monotonic();
    if (!fresh && this.#fileToken && now - this.#fileToken.readAt < TOKEN_FILE_TTL_MS) return this.#fileToken.token;
    try {
      this.#fileToken = { token: (await readFile(tokenFile, "utf8")).trim(), readAt: now };
    } catch (error) {
      // While the file is being replaced, the last token is usually still valid.
      if (!this.#fileToken) throw error;
    }
    return this.#fileToken.token;
  }
}

function base64(text: string): string {
  return Buffer.from(text, "utf8").toString("base64");
}

/** Characters of a header's name (RFC 9110, token) except `%`, which starts an escape. */
const LEGAL = /[!#$&'*+.^_`|~0-9A-Za-z-]/;

/** Formats the headers like client-go (transport/round_trippers.go). */
function impersonationHeaders(as: Impersonation): Record<string, string | string[]> {
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

/** Node writes one byte per character of a header, and the API server reads UTF-8. */
function asHeader(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}
