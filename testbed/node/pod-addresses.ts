import { randomInt } from "node:crypto";

/** Networks of 250 Pods each within 127.0.0.0/8. The first networks are left for other servers. */
const FIRST_NETWORK = 16 * 256;
const NETWORKS = 240 * 256;
const PER_NETWORK = 250;

/**
 * The addresses of one node's Pods. They're loopback addresses, so that a Pod whose container is a local process is
 * reachable at the address in its status. Each node starts at a random network, so that nodes rarely overlap.
 */
export class PodAddresses {
  readonly #start = randomInt(NETWORKS - FIRST_NETWORK);
  #given = 0;

  next(): string {
    const network =
      FIRST_NETWORK + ((this.#start + Math.floor(this.#given / PER_NETWORK)) % (NETWORKS - FIRST_NETWORK));
    const last = (this.#given % PER_NETWORK) + 2;
    this.#given += 1;
    return `127.${Math.floor(network / 256)}.${network % 256}.${last}`;
  }
}
