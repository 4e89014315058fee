/** This machine lacks something or is too small. The message says what, and how to get it. */
export class MissingToolError extends Error {
  override readonly name = "MissingToolError";
}
