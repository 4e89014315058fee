/** The standard input and output of a container. */
export interface ContainerStreams {
  /** Writes to standard input. Ignored by a container without one, and after its end. */
  write(bytes: Buffer): void;
  closeInput(): void;
  /** Calls `fn` with all standard output from now on. Returns a function that ends this. */
  follow(fn: (bytes: Buffer) => void): () => void;
  /** The log: both outputs so far. */
  log(): Promise<Buffer>;
}

/** What reads the standard input of a scripted container. */
export interface ScriptedInput {
  read(bytes: Buffer): void;
  closed(): void;
}

/** The streams of a container without a process. */
export class ScriptedStreams implements ContainerStreams {
  readonly #input: ScriptedInput;
  readonly #followers = new Set<(bytes: Buffer) => void>();
  #log = "";

  constructor(input: ScriptedInput) {
    this.#input = input;
  }

  write(bytes: Buffer): void {
    this.#input.read(bytes);
  }

  closeInput(): void {
    this.#input.closed();
  }

  follow(fn: (bytes: Buffer) => void): () => void {
    this.#followers.add(fn);
    return () => void this.#followers.delete(fn);
  }

  async log(): Promise<Buffer> {
    return Buffer.from(this.#log);
  }

  /** Prints a line to standard output. */
  print(line: string): void {
    this.#log += `${line}\n`;
    for (const follower of this.#followers) follower(Buffer.from(`${line}\n`));
  }

  /** Prints a line to standard error, which attached clients don't get. */
  printError(line: string): void {
    this.#log += `${line}\n`;
  }
}
