/** Where a command writes, and what it knows of who reads. */
export interface CliStreams {
  out(text: string): void;
  err(text: string): void;
  /** Whether a person reads the output: only then it has colours and progress. False unless set. */
  readonly isTerminal?: boolean;
  /** All of the standard input. */
  input?(): Promise<string>;
}
