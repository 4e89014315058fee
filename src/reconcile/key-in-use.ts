import type { Environment } from "../api/environment.ts";

/** The part of a spec that says which key goes where. */
type Api = Pick<Environment["spec"]["api"], "baseUrl" | "keySecretRef">;

/**
 * The environment key that requests are sent with, and where it may be sent. A spec that names another address and another
 * Secret at one stroke must not have either key sent to the other's address: not the old one to the new address until the
 * new Secret was read, nor the new one to sessions that were claimed at the old address. Only a key that is named for both
 * follows, with whatever its Secret holds later.
 */
export class KeyInUse {
  #key = "";
  /** What the spec said when it was read. */
  #from: { readonly secret: string; readonly baseUrl: string } | null = null;
  /** By address that the spec named before, the key of the Secret that it named then. Not kept over a restart: then there is one. */
  readonly #earlier = new Map<string, { readonly secret: string; readonly key: string }>();

  /** As it was read last; empty: there is none. */
  get key(): string {
    return this.#key;
  }

  /** The key for the address of this spec; empty: there is none, or none was read for it yet. */
  for({ baseUrl, keySecretRef }: Api): string {
    const isIts = this.#from?.baseUrl === baseUrl || this.#from?.secret === nameOf(keySecretRef);
    return isIts ? this.#key : "";
  }

  /** The key for an address that an earlier spec named. */
  forEarlier(address: string, { keySecretRef }: Api): string {
    const earlier = this.#earlier.get(address);
    return earlier && earlier.secret !== nameOf(keySecretRef) ? earlier.key : this.#key;
  }

  /**
   * Another one was read; empty: there is none any more.
   * @param addresses all that claims may name
   */
  take(key: string, { baseUrl, keySecretRef }: Api, addresses: readonly string[]): void {
    const secret = nameOf(keySecretRef);
    const before = this.#from;
    for (const address of this.#earlier.keys()) if (!addresses.includes(address)) this.#earlier.delete(address);
    if (before && before.secret !== secret && this.#key !== "") {
      for (const address of new Set([...addresses, before.baseUrl])) {
        if (!this.#earlier.has(address)) this.#earlier.set(address, { secret: before.secret, key: this.#key });
      }
    }
    this.#earlier.delete(baseUrl);
    this.#key = key;
    this.#from = { secret, baseUrl };
  }
}

function nameOf({ name, key }: Api["keySecretRef"]): string {
  return `${name}/${key}`;
}
