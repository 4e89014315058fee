/** Fits most replies, so that their bytes are copied once. */
const FIRST_CAPACITY = 16 * 1024;

/**
 * Collects bytes that arrive in pieces in one growing buffer. The buffer takes at most twice the size of the bytes. A
 * list of pieces costs some hundred bytes per piece: a body sent byte by byte would cost a hundred times its size.
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

  /** Returns all bytes as one buffer, which is valid until the next push. */
  concat(): Buffer {
    return this.#buffer.subarray(0, this.#bytes);
  }

  /** Returns all bytes as one buffer and empties this object. */
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
