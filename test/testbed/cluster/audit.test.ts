import { appendFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { AUDIT_POLICY, AuditLog, countEntries, parseAuditLine } from "../../../testbed/cluster/audit.ts";
import { temporaryDir } from "./temporary.ts";

interface EventFields {
  user?: string;
  verb?: string;
  uri?: string;
  ref?: Record<string, string> | undefined;
  code?: number;
  more?: Record<string, unknown>;
}

/** Returns a line as an API server writes it. */
function line(fields: EventFields = {}): string {
  const { user = "berth-operator", verb = "get", uri = "/api/v1/namespaces/a/pods/p", code = 200, more = {} } = fields;
  const ref = "ref" in fields ? fields.ref : { resource: "pods", namespace: "a", name: "p", apiVersion: "v1" };
  return JSON.stringify({
    kind: "Event",
    apiVersion: "audit.k8s.io/v1",
    level: "Metadata",
    stage: "ResponseComplete",
    requestURI: uri,
    verb,
    user: { username: user, groups: ["system:authenticated"] },
    sourceIPs: ["127.0.0.1"],
    userAgent: "berth/0.1.0",
    ...(ref && { objectRef: ref }),
    responseStatus: { metadata: {}, code },
    requestReceivedTimestamp: "2026-01-02T03:04:05.000001Z",
    stageTimestamp: "2026-01-02T03:04:05.006000Z",
    ...more,
  });
}

describe("a line of the audit log", () => {
  it("shows who did what to which object", () => {
    expect(parseAuditLine(line())).toEqual({
      user: "berth-operator",
      verb: "get",
      resource: "pods",
      subresource: "",
      namespace: "a",
      name: "p",
      code: 200,
      userAgent: "berth/0.1.0",
      receivedAt: Date.parse("2026-01-02T03:04:05.000Z"),
      completedAt: Date.parse("2026-01-02T03:04:05.006Z"),
    });
  });

  it("shows the subresource", () => {
    const ref = { resource: "pods", subresource: "status", namespace: "a", name: "p" };
    expect(parseAuditLine(line({ ref, verb: "patch" }))).toMatchObject({ resource: "pods", subresource: "status" });
  });

  it("shows the path of a request without a resource, without its query", () => {
    const entry = parseAuditLine(line({ ref: undefined, uri: "/openapi/v3?timeout=32s" }));
    expect(entry).toMatchObject({ resource: "/openapi/v3", namespace: "", name: "" });
  });

  it("names the user whose permissions applied", () => {
    const entry = parseAuditLine(line({ user: "berth-admin", more: { impersonatedUser: { username: "alice" } } }));
    expect(entry?.user).toBe("alice");
  });

  it("has no code if there was no answer", () => {
    expect(parseAuditLine(line({ more: { responseStatus: null } }))?.code).toBe(0);
  });

  it.each([
    ["half a line", line().slice(0, 50)],
    ["an empty line", ""],
    ["something else", "[1]"],
    ["a fence", line({ ref: undefined, uri: "/version?audit-fence=00ff" })],
  ])("isn't a request if it's %s", (_name, text) => {
    expect(parseAuditLine(text)).toBeUndefined();
  });
});

describe("counts of requests", () => {
  it("add up requests that differ only in their object, the most frequent first", () => {
    const entries = [line({ code: 404 }), line(), line({ ref: { resource: "pods", namespace: "b", name: "q" } })]
      .map(parseAuditLine)
      .filter((entry) => entry !== undefined);
    const common = { user: "berth-operator", verb: "get", resource: "pods", subresource: "" };
    expect(countEntries(entries)).toEqual([
      { ...common, code: 200, count: 2 },
      { ...common, code: 404, count: 1 },
    ]);
  });
});

describe("the audit log", () => {
  /** Returns the log of an API server that writes its lines some time after its answers. */
  async function lateLog(pending: string[]): Promise<AuditLog> {
    const file = join(await temporaryDir(), "audit.log");
    await writeFile(file, "");
    return new AuditLog(file, async (path) => {
      const lines = [...pending.splice(0), line({ ref: undefined, uri: path })];
      setImmediate(() => void appendFile(file, `${lines.join("\n")}\n`));
    });
  }

  it("waits for the line of an answered request", async () => {
    const log = await lateLog([line(), line({ code: 404 })]);
    expect((await log.entries()).map(({ code }) => code)).toEqual([200, 404]);
  });

  it("leaves out requests before the mark", async () => {
    const pending = [line({ verb: "create" })];
    const log = await lateLog(pending);
    const since = await log.mark();
    expect(await log.total({ since })).toBe(0);
    pending.push(line({ verb: "delete" }));
    expect((await log.entries({ since })).map(({ verb }) => verb)).toEqual(["delete"]);
    expect(await log.total()).toBe(2);
  });

  it("can be filtered", async () => {
    const other = { resource: "secrets", namespace: "b", name: "s" };
    const log = await lateLog([line(), line({ user: "alice" }), line({ verb: "list" }), line({ ref: other })]);
    expect(await log.total({ user: "alice" })).toBe(1);
    expect(await log.total({ verb: "list", resource: "pods" })).toBe(1);
    expect(await log.total({ namespace: "b" })).toBe(1);
    expect(await log.total({ namespace: "b", user: "alice" })).toBe(0);
  });

  it("reads lines that are longer than one chunk", async () => {
    const long = "x".repeat(1_500_000);
    const log = await lateLog([line({ more: { annotations: { long } } }), line({ code: 404 })]);
    expect((await log.entries()).map(({ code }) => code)).toEqual([200, 404]);
  });
});

describe("the audit policy", () => {
  it("writes one line per request and no bodies", () => {
    expect(AUDIT_POLICY).toContain("omitStages:\n  - RequestReceived\n  - ResponseStarted");
    expect(AUDIT_POLICY).toContain("level: Metadata");
    expect(AUDIT_POLICY).not.toMatch(/level: Request/);
  });
});
