import { randomInt } from "node:crypto";

/** Networks of 250 Pods each within 127.0.0.0/8; the first ones are left to everybody's servers. */
const FIRST_NETWORK = 16 * 256;
const NETWORKS = 240 * 256;
const PER_NETWORK = 250;

/**
 * Addresses of one node's Pods: loopback addresses, so that a Pod whose container is a process of this machine can be
 * reached at the one its status shows. Nodes that live at the same time start far apart, by chance.
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
