/** Something that a person can do something about: its message is shown without a stack trace. */
export class DemoError extends Error {
  override readonly name = "DemoError";
}
