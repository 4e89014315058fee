/** Something on this machine is missing or too small; the message says what, and how to get it. */
export class MissingToolError extends Error {
  override readonly name = "MissingToolError";
}
