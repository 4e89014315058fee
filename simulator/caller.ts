/** Which credential a request came with. */
export type CredentialKind = "environment-key" | "sessions-token" | "api-key";

/** What a bearer token or API key stands for. */
export type Credential =
  | { readonly kind: "environment-key"; readonly environmentId: string }
  | { readonly kind: "sessions-token"; readonly workId: string; readonly sessionId: string; readonly offer: number }
  | { readonly kind: "api-key" };

/**
 * Why a request of a correct client may arrive late. `fault`: an injected fault held the request up. `given-up`: its
 * sender closed the connection before the simulator handled it, and may have sent it before it knew what it knows now.
 */
export type RequestExcuse = "fault" | "given-up";

/** Who sent a request, as far as the request shows. */
export interface Caller {
  readonly credential: Credential;
  /** `Anthropic-Worker-ID`, on whatever call it comes. */
  readonly workerId: string | undefined;
  readonly userAgent: string;
  /** Address without the port: one client uses many connections. */
  readonly remote: string;
  /** Why this request may arrive late without a mistake of the client. */
  readonly excuse: RequestExcuse | undefined;
}

/** Written into the history of an item: who did it. */
export interface Actor {
  readonly as: CredentialKind | "server" | "admin";
  readonly workerId?: string;
  readonly userAgent?: string;
  /** Which offer the sessions token was issued with. */
  readonly offer?: number;
}

export const SERVER: Actor = { as: "server" };
export const ADMIN: Actor = { as: "admin" };

export function actorOf(caller: Caller): Actor {
  return {
    as: caller.credential.kind,
    ...(caller.workerId !== undefined && { workerId: caller.workerId }),
    ...(caller.userAgent && { userAgent: caller.userAgent }),
    ...(caller.credential.kind === "sessions-token" && { offer: caller.credential.offer }),
  };
}

/**
 * Who holds a lease, as exactly as the requests show it. A sessions token is issued per offer, so it names one holder;
 * holders that use the environment key are told apart by worker id, or by User-Agent and address where they send none.
 */
export function partyOf(caller: Caller): string {
  if (caller.credential.kind === "sessions-token") return `token of offer ${caller.credential.offer}`;
  return `${caller.credential.kind} of ${caller.workerId ?? `${caller.userAgent || "no User-Agent"} at ${caller.remote}`}`;
}
