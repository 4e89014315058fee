/** Base of all errors that Berth throws on purpose. `code` is stable and documented in docs/errors.md. */
export class OperatorError extends Error {
  readonly code: string;
  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/**
 * A flag, environment variable or file that the process was started with is wrong. The process ends with exit code 2.
 */
export class ConfigError extends OperatorError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("Config", message, options);
  }
}

/** Not possible now, for a known reason that is not our fault: show a condition and retry after `retryAfterMs`. */
export class WaitError extends OperatorError {
  readonly reason: string;
  readonly retryAfterMs: number;
  constructor(reason: string, message: string, retryAfterMs: number, options?: { cause?: unknown }) {
    super("Wait", message, options);
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Not possible until a person changes something: show it, log it, and do not retry on a timer. */
export class TerminalError extends OperatorError {
  readonly reason: string;
  constructor(reason: string, message: string, options?: { cause?: unknown }) {
    super("Terminal", message, options);
    this.reason = reason;
  }
}

/** Returns the message of anything thrown and of its causes, on one line. */
export function errorText(error: unknown): string {
  const parts: string[] = [];
  let at: unknown = error;
  for (let depth = 0; at !== undefined && at !== null && depth < 5; depth += 1) {
    // Collapse white space before comparing: another error may quote this text in its one-line form.
    const text = (at instanceof Error ? at.message || at.name : String(at)).replaceAll(/\s+/g, " ").trim();
    if (text && !parts.some((part) => part.includes(text))) parts.push(text);
    at = at instanceof Error ? at.cause : undefined;
  }
  return parts.join(": ");
}
