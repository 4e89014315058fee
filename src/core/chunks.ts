/** Fits most replies, so that they are copied once. */
const FIRST_CAPACITY = 16 * 1024;

/**
 * Bytes that come in pieces, kept in one growing buffer: at most twice their size, whatever the pieces. A list of pieces
 * costs some hundred bytes for each, so that a body sent byte by byte would cost a hundred times its size.
 */
export class Chunks {
  #buffer = Buffer.alloc(0);
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  push(piece: Uint8Array): void {
    const bytes = this.#bytes + piece.length;
    if (bytes > this.#buffer.length) this.#grow(bytes);
    this.#buffer.set(piece, this.#bytes);
    this.#bytes = bytes;
  }

  /** All of them in one; valid until the next push. */
  concat(): Buffer {
    return this.#buffer.subarray(0, this.#bytes);
  }

  /** All of them in one, and none are left. */
  take(): Buffer {
    const all = this.concat();
    this.#buffer = Buffer.alloc(0);
    this.#bytes = 0;
    return all;
  }

  #grow(bytes: number): void {
    const grown = Buffer.allocUnsafeSlow(Math.max(bytes, 2 * this.#buffer.length, FIRST_CAPACITY));
    grown.set(this.concat());
    this.#buffer = grown;
  }
}
