import pino from "pino";

export type Logger = pino.Logger;

/**
 * Keys whose values are removed from log lines, up to three levels deep. This is a second line of defense: code must
 * not log them in the first place. `key` is not listed, because work queues use it for names of objects.
 */
export const REDACTED_KEYS = [
  "authorization",
  "Authorization",
  "x-api-key",
  "secret",
  "token",
  "apiKey",
  "sessions_token",
  "sessionsToken",
  "environmentKey",
  "environment-key",
  "workSecret",
  "password",
] as const;

/** Patterns of credentials anywhere in a text, with their replacements. */
const CREDENTIALS: readonly (readonly [form: RegExp, shown: string])[] = [
  [/sk-ant-[A-Za-z0-9_-]{4,}/g, "sk-ant-[redacted]"],
  [/whsec_[A-Za-z0-9+/=]{8,}/g, "whsec_[redacted]"],
  // The same in base64, as in a Secret's data.
  [/c2stYW50L[A-Za-z0-9+/_=-]{4,}/g, "[redacted]"],
  // JSON in base64 (it starts with `{"`): the secret of a work item, and the parts of a service account's token.
  [/eyJ[A-Za-z0-9_-]{16,}={0,2}(?:\.[A-Za-z0-9_-]+)*/g, "[redacted]"],
  [/\bBearer [A-Za-z0-9._~+/=-]{8,}/gi, "Bearer [redacted]"],
];

/** Replaces every credential in a text. For messages from other programs (servers, containers). */
export function redact(text: string): string {
  return CREDENTIALS.reduce((shown, [form, instead]) => shown.replaceAll(form, instead), text);
}

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Writes JSON lines to `destination` (standard error by default), with times in ISO 8601. */
export function createLogger(level: LogLevel | "silent", destination?: pino.DestinationStream): Logger {
  const paths = REDACTED_KEYS.flatMap((key) => [`["${key}"]`, `*["${key}"]`, `*.*["${key}"]`]);
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths, censor: "[redacted]" },
      formatters: { level: (label) => ({ level: label }) },
      hooks: {
        streamWrite: (line) => redact(line),
      },
    },
    destination ?? pino.destination({ dest: 2, sync: true }),
  );
}

/** A logger that writes nothing. */
export const silentLogger: Logger = pino({ level: "silent" });
