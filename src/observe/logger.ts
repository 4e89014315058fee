import pino from "pino";

export type Logger = pino.Logger;

/** Keys whose values never reach a log line. A second line of defence: nothing should pass them in the first place. */
export const REDACTED_KEYS = [
  "authorization",
  "Authorization",
  "secret",
  "token",
  "key",
  "sessions_token",
  "environmentKey",
  "workSecret",
  "password",
] as const;

/** What looks like a credential of the platform, wherever it stands in a text. */
const CREDENTIAL = /sk-ant-[A-Za-z0-9_-]{4,}/g;

/** Replaces every credential in a text; for messages that come from elsewhere (servers, containers). */
export function redact(text: string): string {
  return text.replaceAll(CREDENTIAL, "sk-ant-[redacted]");
}

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** JSON lines on `destination` (standard error unless given), time in ISO 8601. */
export function createLogger(level: LogLevel | "silent", destination?: pino.DestinationStream): Logger {
  const paths = REDACTED_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]);
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
