/** A local DNS server whose answer a test can change. */

import { createSocket, type Socket } from "node:dgram";
import { Resolver } from "node:dns";
import { once } from "node:events";
import type { Resolve } from "../../src/work/guarded-connect.ts";

/** Constants of the DNS (RFC 1035, 4.1). */
const HEADER_BYTES = 12;
const FLAGS_ANSWER = 0x8180;
const TYPE_A = 1;
const CLASS_IN = 1;
const POINTER_TO_NAME = 0xc00c;
const QUESTION_END_BYTES = 5;

/**
 * A local name server that resolves every name to the same IPv4 address, with a TTL of 0. A test can change the
 * address.
 */
export class NameServer implements AsyncDisposable {
  address: string;
  /** The number of queries for an address. */
  asked = 0;
  readonly #socket: Socket;

  private constructor(socket: Socket, address: string) {
    this.#socket = socket;
    this.address = address;
    socket.on("message", (query, { port, address: from }) => socket.send(this.#answer(query), port, from));
  }

  static async start(address: string): Promise<NameServer> {
    const socket = createSocket("udp4");
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    return new NameServer(socket, address);
  }

  /** Resolves with this server, in place of `dns.lookup`. */
  get resolve(): Resolve {
    const resolver = new Resolver();
    resolver.setServers([`127.0.0.1:${this.#socket.address().port}`]);
    return (hostname, _options, callback) =>
      resolver.resolve4(hostname, (error, found) =>
        callback(error, error ? [] : found.map((address) => ({ address, family: 4 }))),
      );
  }

  #answer(query: Buffer): Buffer {
    const nameEnd = query.indexOf(0, HEADER_BYTES);
    const question = query.subarray(HEADER_BYTES, nameEnd + QUESTION_END_BYTES);
    const isA = question.readUInt16BE(question.length - 4) === TYPE_A;
    if (isA) this.asked += 1;
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt16BE(query.readUInt16BE(0), 0);
    header.writeUInt16BE(FLAGS_ANSWER, 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(isA ? 1 : 0, 6);
    if (!isA) return Buffer.concat([header, question]);
    const record = Buffer.alloc(16);
    record.writeUInt16BE(POINTER_TO_NAME, 0);
    record.writeUInt16BE(TYPE_A, 2);
    record.writeUInt16BE(CLASS_IN, 4);
    record.writeUInt16BE(4, 10);
    Buffer.from(this.address.split(".").map(Number)).copy(record, 12);
    return Buffer.concat([header, question, record]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
  }
}
