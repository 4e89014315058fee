import { describe, expect, test } from "vitest";
import {
  createLogger,
  LOG_LEVELS,
  type LogLevel,
  REDACTED_KEYS,
  redact,
  silentLogger,
} from "../../src/observe/logger.ts";

const KEY = "sk-ant-oat01-AbCdEf_123-456";
/** The form of a work item's secret: JSON in base64url. */
const WORK_SECRET = Buffer.from(JSON.stringify({ sessions_token: "opaque-0123456789" })).toString("base64url");
/** The form in which kubectl shows the data of a Secret. */
const SECRET_DATA = Buffer.from(KEY).toString("base64");
const SERVICE_ACCOUNT_TOKEN = `${Buffer.from('{"alg":"RS256","kid":"abcdef"}').toString("base64url")}.eyJhdWQiOlsieCJdfQ.c2ln-bmF0_dXJl`;

/** A logger and its lines. */
function logged(level: LogLevel = "trace") {
  const lines: string[] = [];
  const logger = createLogger(level, { write: (line: string) => void lines.push(line) });
  const parsed = () => lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  return { logger, lines, parsed };
}

describe("the log hides", () => {
  test.each([...REDACTED_KEYS])("the value of %s, at the top and nested", (key) => {
    const { logger, lines } = logged();
    logger.info({ [key]: "opaque-value" }, "top");
    logger.info({ a: { [key]: "opaque-value" } }, "one level down");
    logger.info({ a: { b: { [key]: "opaque-value" } } }, "two levels down");
    logger.info({ list: [{ [key]: "opaque-value" }] }, "in a list");
    logger.child({ [key]: "opaque-value" }).info("in a child's bindings");
    expect(lines).toHaveLength(5);
    for (const line of lines) {
      expect(line).not.toContain("opaque-value");
      expect(line).toContain("[redacted]");
    }
  });

  test("a credential in a message, a field, an error, its cause and its stack", () => {
    const { logger, lines } = logged();
    const error = new Error(`401 for ${KEY}`, { cause: new Error(`because of ${KEY}`) });
    logger.info(`asked with ${KEY}`);
    logger.info({ url: `https://api.example/?key=${KEY}` }, "asked");
    logger.error({ err: error }, "failed");
    logger.error(error);
    logger.child({ deep: { deeper: { deepest: { text: KEY } } } }).info("child");
    logger.info("with %s as an argument", KEY);
    expect(lines).toHaveLength(6);
    for (const line of lines) {
      expect(line).not.toContain("AbCdEf");
      expect(line).toContain("sk-ant-[redacted]");
    }
  });

  test("properties of errors that hold a credential", () => {
    const { logger, lines } = logged();
    const error = Object.assign(new Error("refused"), { headers: { authorization: "opaque-value" } });
    logger.error({ err: error }, "failed");
    expect(lines.join()).not.toContain("opaque-value");
  });

  test.each([
    ["the secret of a work item", WORK_SECRET],
    ["the data of a Secret", SECRET_DATA],
    ["a service account's token", SERVICE_ACCOUNT_TOKEN],
    ["a bearer token of any form", "Bearer opaque/value+0123="],
  ])("%s anywhere in a text", (_name, value) => {
    expect(redact(`before ${value} after`)).toMatch(/^before (Bearer )?\[redacted\] after$/);
    const { logger, parsed } = logged();
    logger.warn({ nested: { text: `<${value}>` } }, `got ${value}`);
    expect(JSON.stringify(parsed())).not.toContain(value);
  });

  test("each of several credentials in one text", () => {
    expect(redact(`${KEY}, ${KEY}`)).toBe("sk-ant-[redacted], sk-ant-[redacted]");
  });
});

describe("the log shows", () => {
  test("a text that only resembles a credential", () => {
    const text = "Secret berth-research-x7k2p: key environment-key, bearer of news, eyJ, sk-ant-, token expired";
    expect(redact(text)).toBe(text);
  });

  test("the key of a work queue, which names an object", () => {
    const { logger, parsed } = logged();
    logger.info({ key: "agents/research" }, "reconciled");
    expect(parsed()[0]).toMatchObject({ key: "agents/research" });
  });

  test("one JSON object per line, with level, ISO time, message, and the fields of a child logger", () => {
    const { logger, lines, parsed } = logged();
    logger.child({ environment: "research" }).warn({ attempt: 2 }, "slow\nanswer");
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^[^\n]*\n$/);
    expect(parsed()[0]).toEqual({
      level: "warn",
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      environment: "research",
      attempt: 2,
      msg: "slow\nanswer",
    });
  });

  test("only lines of its level and above", () => {
    for (const level of LOG_LEVELS) {
      const { logger, parsed } = logged(level);
      for (const at of LOG_LEVELS) logger[at]("line");
      expect(parsed().map((line) => line["level"])).toEqual(LOG_LEVELS.slice(LOG_LEVELS.indexOf(level)));
    }
  });

  test("nothing when silent", () => {
    const lines: string[] = [];
    createLogger("silent", { write: (line) => void lines.push(line) }).fatal("line");
    silentLogger.fatal("line");
    expect(lines).toEqual([]);
  });
});

test("an unknown level is refused at the start", () => {
  for (const level of ["verbose", "warning", "quiet"]) {
    expect(() => createLogger(level as LogLevel), level).toThrow(/level/);
  }
});
