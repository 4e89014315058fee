/** The kind of credential that a request carried. */
export type CredentialKind = "environment-key" | "sessions-token" | "api-key";

/** What a bearer token or API key identifies. */
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
  /** The header `Anthropic-Worker-ID`, which any call may carry. */
  readonly workerId: string | undefined;
  readonly userAgent: string;
  /** The address without the port, because one client uses many connections. */
  readonly remote: string;
  /** Why this request may arrive late without a mistake of the client. */
  readonly excuse: RequestExcuse | undefined;
}

/** Who made a change, as recorded in the history of an item. */
export interface Actor {
  readonly as: CredentialKind | "server" | "admin";
  readonly workerId?: string;
  readonly userAgent?: string;
  /** The offer that the sessions token was issued with. */
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
 * Identifies the holder of a lease as precisely as its requests allow. A sessions token is issued per offer, so it
 * identifies one holder. Holders that use the environment key are told apart by worker id, or by User-Agent and address
 * if they send none.
 */
export function partyOf(caller: Caller): string {
  if (caller.credential.kind === "sessions-token") return `token of offer ${caller.credential.offer}`;
  return `${caller.credential.kind} of ${caller.workerId ?? `${caller.userAgent || "no User-Agent"} at ${caller.remote}`}`;
}
