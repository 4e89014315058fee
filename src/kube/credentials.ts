import { readFile } from "node:fs/promises";
import type { Clock } from "../core/clock.ts";
import type { Impersonation } from "./kubeconfig.ts";

/** What a TLS connection is made with; PEM texts. */
export interface TlsMaterial {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
  /** False only where a kubeconfig says insecure-skip-tls-verify. */
  readonly rejectUnauthorized?: boolean;
}

/** How requests prove who sends them. Several may be set: a certificate beside a token. */
export interface Auth {
  readonly token?: string;
  /** Read again and again: bound service account tokens are replaced about every hour. Wins over `token`. */
  readonly tokenFile?: string;
  readonly basic?: { readonly username: string; readonly password: string };
  /** PEM. */
  readonly cert?: string;
  readonly key?: string;
  /** A plug-in (exec, OIDC). `fresh` asks for new credentials instead of remembered ones. */
  readonly plugin?: (fresh: boolean) => Promise<PluginCredentials>;
  readonly impersonate?: Impersonation;
}

export interface PluginCredentials {
  readonly authorization?: string;
  readonly cert?: string;
  readonly key?: string;
}

/** A list is sent as one line each. */
export type RequestHeaders = Record<string, string | string[]>;

/** What one request is sent with. */
export interface RequestCredentials {
  readonly headers: RequestHeaders;
  readonly cert?: string;
  readonly key?: string;
}

/** client-go reads a token file again after this time (transport/token_source.go); kubelet replaces it long before it expires. */
const TOKEN_FILE_TTL_MS = 60_000;

/** The credentials of a process, as they are now. */
export class Credentials {
  readonly #auth: Auth;
  readonly #clock: Clock;
  #fileToken: { token: string; readAt: number } | undefined;

  constructor(auth: Auth, clock: Clock) {
    this.#auth = auth;
    this.#clock = clock;
  }

  /** Whether asking for fresh ones can help after a 401. */
  get refreshable(): boolean {
    return this.#auth.tokenFile !== undefined || this.#auth.plugin !== undefined;
  }

  /** @param fresh after a 401: nothing remembered is used. Throws what reading a file or a plug-in throws. */
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
      // Half-way through a replacement of the file the last token is most often still good.
      if (!this.#fileToken) throw error;
    }
    return this.#fileToken.token;
  }
}

function base64(text: string): string {
  return Buffer.from(text, "utf8").toString("base64");
}

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
