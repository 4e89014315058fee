/** What somebody may do with a kind of objects. */
export interface Right {
  /** Empty for the core group. */
  readonly group: string;
  /** With its subresource: `environments/status`. */
  readonly resource: string;
  /** Separated by blanks. */
  readonly verbs: string;
}
