/** Base of all errors that Berth throws on purpose. `code` is stable and documented in docs/errors.md. */
export class OperatorError extends Error {
  readonly code: string;
  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A flag, environment variable or file the process was started with is wrong. Ends the process with exit code 2. */
export class ConfigError extends OperatorError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("Config", message, options);
  }
}

/** Not possible now for a known reason: show it as a condition, try again after `retryAfterMs`. Not a fault of ours. */
export class WaitError extends OperatorError {
  readonly reason: string;
  readonly retryAfterMs: number;
  constructor(reason: string, message: string, retryAfterMs: number, options?: { cause?: unknown }) {
    super("Wait", message, options);
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Not possible until somebody changes something: show it, log it, do not retry by the clock. */
export class TerminalError extends OperatorError {
  readonly reason: string;
  constructor(reason: string, message: string, options?: { cause?: unknown }) {
    super("Terminal", message, options);
    this.reason = reason;
  }
}

/** True for the rejection of an operation that was aborted through its own signal. */
export function isAbort(error: unknown, signal?: AbortSignal): boolean {
  if (signal && !signal.aborted) return false;
  return (
    error instanceof Error && (error.name === "AbortError" || error.name === "TimeoutError" || signal !== undefined)
  );
}

/** The message of anything thrown, with its chain of causes, in one line. */
export function errorText(error: unknown): string {
  const parts: string[] = [];
  let at: unknown = error;
  for (let depth = 0; at !== undefined && at !== null && depth < 5; depth += 1) {
    // In one line before it is compared: what another error says of it is.
    const text = (at instanceof Error ? at.message || at.name : String(at)).replaceAll(/\s+/g, " ").trim();
    if (text && !parts.some((part) => part.includes(text))) parts.push(text);
    at = at instanceof Error ? at.cause : undefined;
  }
  return parts.join(": ");
}
