import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { KEY_SESSION_ID, KEY_WORK_ID, KEY_WORK_SECRET } from "../../src/api/names.ts";
import { claimSelector } from "../../src/claims/claim-lists.ts";
import { defined } from "../../src/core/json.ts";
import type { Secret } from "../../src/kube/resource.ts";
import {
  CLAIM_SECRET_TYPE,
  type Journal,
  listedRecord,
  openingPatch,
  readJournal,
  renderJournal,
  storedCredential,
} from "../../src/protocol/journal.ts";

/** The keys that the API server allows in a Secret's data. */
const DATA_KEY = /^[-._a-zA-Z0-9]{1,253}$/;
const LABEL_VALUE = /^(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?$/;

const WHERE = { name: "berth-research-x", namespace: "agents", environment: "research" };

const JOURNAL: Omit<Journal, "opened" | "acknowledgedAt"> = {
  use: "session",
  lease: "Operator",
  environmentUid: "5f0c3b8a-9c4e-4b0e-8b1f-2d9f7f6f0a11",
  podUid: "0d1a7a9e-0b52-4a37-9a43-4d2a8d6f3b02",
  workId: "work_1",
  sessionId: "sesn_1",
  queuedAt: "2030-01-01T00:00:00Z",
  polledFromMs: 1_893_456_000_000,
  polledUntilMs: 1_893_456_000_900,
};

const base64 = (text: string) => Buffer.from(text).toString("base64");
const fromBase64 = (text = "") => Buffer.from(text, "base64").toString();

/** Stores a Secret as the API server does: it merges stringData into data and never returns stringData. */
function stored({ stringData = {}, ...secret }: Secret): Secret {
  const added = Object.entries(stringData).map(([key, value]) => [key, base64(value)]);
  return {
    ...secret,
    metadata: { ...secret.metadata, uid: "u1", resourceVersion: "7" },
    data: { ...secret.data, ...Object.fromEntries(added) },
  };
}

/** Applies a merge patch to a Secret's data (RFC 7386). */
function patched(secret: Secret, patch: Record<string, unknown>): Secret {
  const data: Record<string, string> = { ...secret.data };
  for (const [key, value] of Object.entries((patch["data"] ?? {}) as Record<string, string | null>)) {
    if (value === null) delete data[key];
    else data[key] = value;
  }
  return { ...secret, data };
}

/** Ids are opaque: long, multi-line and in any script, but with whole characters, since JSON carries no others. */
const oddId = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 40 }),
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({ unit: "grapheme-ascii", minLength: 1_000, maxLength: 1_000 }),
  fc.constantFrom("", "a\nb", "\u0000", "=", "ünï/çødé", "🦆", "../../etc", " spaces "),
);

const anyJournal = fc.record({
  use: fc.constantFrom("session", "refusal", "too-long", "stop", "removal"),
  lease: fc.constantFrom("Worker", "Operator"),
  environmentUid: oddId,
  podUid: oddId,
  workId: oddId,
  sessionId: oddId,
  queuedAt: oddId,
  polledFromMs: fc.integer(),
  polledUntilMs: fc.integer(),
}) as fc.Arbitrary<typeof JOURNAL>;

describe("round trip", () => {
  test("reads back everything that was journaled, whatever the ids contain", () => {
    fc.assert(
      fc.property(anyJournal, fc.option(oddId), (journal, credential) => {
        const secret = stored(renderJournal(WHERE, journal, credential));
        expect(readJournal(secret)).toEqual({ ...journal, acknowledgedAt: null, opened: false });
        expect(fromBase64(storedCredential(secret))).toBe(credential ?? "");
      }),
    );
  });

  test("opening moves the credential byte for byte, and keeps everything else", () => {
    fc.assert(
      fc.property(anyJournal, oddId, oddId, (journal, credential, acknowledgedAt) => {
        const before = stored(renderJournal(WHERE, journal, credential));
        const patch = openingPatch({ uid: "u1", resourceVersion: "7" }, storedCredential(before), acknowledgedAt);
        const after = patched(before, patch);
        expect(readJournal(after)).toEqual({ ...journal, acknowledgedAt, opened: true });
        expect(fromBase64(after.data?.[KEY_WORK_SECRET])).toBe(credential);
        expect(storedCredential(after)).toBe("");
      }),
    );
  });

  test("reads a removal, which names no item", () => {
    const removal = { ...JOURNAL, use: "removal" as const, workId: "", sessionId: "" };
    expect(readJournal(stored(renderJournal(WHERE, removal, null)))).toMatchObject({ use: "removal", workId: "" });
  });
});

test("a listed record keeps its age, which tells which starts are newer", () => {
  const creationTimestamp = "2030-01-01T00:00:00Z";
  const secret = stored(renderJournal(WHERE, JOURNAL, "secret"));
  const listed = listedRecord({ ...secret, metadata: { ...secret.metadata, creationTimestamp } });
  expect(listed.metadata.creationTimestamp).toBe(creationTimestamp);
});

describe("opening", () => {
  test("names the uid and resourceVersion, so that a late request changes nothing", () => {
    const patch = openingPatch({ uid: "u1", resourceVersion: "7" }, base64("secret"), "2030-01-01T00:00:00Z");
    expect(patch["metadata"]).toEqual({ uid: "u1", resourceVersion: "7" });
  });

  test("the key that the container waits for is missing before the opening", () => {
    const before = stored(renderJournal(WHERE, JOURNAL, "secret"));
    expect(Object.keys(before.data ?? {})).not.toContain(KEY_WORK_SECRET);
    expect(Object.keys(before.data ?? {})).toEqual(expect.arrayContaining([KEY_WORK_ID, KEY_SESSION_ID]));
  });
});

describe("the rendered Secret", () => {
  const rendered = () => renderJournal(WHERE, JOURNAL, "secret");

  test("has valid data keys and label values", () => {
    const secret = rendered();
    for (const key of Object.keys(secret.stringData ?? {})) expect(key).toMatch(DATA_KEY);
    for (const value of Object.values(secret.metadata.labels ?? {})) expect(value).toMatch(LABEL_VALUE);
  });

  test("is not immutable, since opening changes it, and has no owner, since it outlives its Pod", () => {
    const secret = rendered();
    expect(secret.immutable).toBeUndefined();
    expect(secret.metadata.ownerReferences).toBeUndefined();
  });

  test("holds the credential only in its data", () => {
    const { stringData, ...rest } = renderJournal(WHERE, JOURNAL, "sk-ant-req-x");
    expect(JSON.stringify(rest)).not.toContain("sk-ant-req-x");
    expect(Object.values(stringData ?? {}).filter((value) => value.includes("sk-ant-req-x"))).toHaveLength(1);
  });

  test("matches the selector of its own Environment only", () => {
    const labels = rendered().metadata.labels ?? {};
    const selects = (selector: string) =>
      selector.split(",").every((term) => {
        const [key = "", value] = term.split("=");
        return labels[key] === value;
      });
    expect(selects(claimSelector("research"))).toBe(true);
    expect(selects(claimSelector("other"))).toBe(false);
  });

  test("has a selector for an Environment name with dots", () => {
    expect(claimSelector("research.eu-1")).toContain("berth.dev/environment=research.eu-1");
  });
});

describe("a record from a list of Secrets", () => {
  const opened = stored(renderJournal(WHERE, JOURNAL, null));
  const record: Secret = {
    ...opened,
    metadata: { ...opened.metadata, uid: "u", resourceVersion: "7" },
    data: { ...opened.data, "work-secret": base64("secret"), "acknowledged-at": base64("2026-01-02T03:04:05Z") },
  };

  test.each([
    ["before it is opened", stored(renderJournal(WHERE, JOURNAL, "secret"))],
    ["opened", record],
  ])("keeps its content without the credential: %s", (_, secret) => {
    const kept = listedRecord(secret);
    expect(readJournal(kept)).toEqual(readJournal(secret));
    const { name, namespace, uid, resourceVersion } = secret.metadata;
    expect(kept.metadata).toMatchObject(defined({ name, namespace, uid, resourceVersion }));
    expect(kept.metadata.labels?.["berth.dev/environment"]).toBe(WHERE.environment);
    expect(JSON.stringify(kept)).not.toContain(base64("secret"));
  });

  test("keeps at most the name of a forged Secret", () => {
    const filler = base64("x".repeat(100_000));
    const more = listedRecord({
      ...record,
      metadata: { ...record.metadata, annotations: { filler } },
      data: { ...record.data, filler },
    });
    expect(readJournal(more)).toEqual(readJournal(record));
    expect(JSON.stringify(more).length).toBeLessThan(2_000);
    const longer = listedRecord({ ...record, data: { ...record.data, "queued-at": filler } });
    expect(readJournal(longer)).toBeNull();
    expect(JSON.stringify(longer).length).toBeLessThan(1_000);
  });
});

describe("a foreign Secret is not read as a claim", () => {
  const ours = stored(renderJournal(WHERE, JOURNAL, "secret"));

  test.each<[string, Partial<Secret>]>([
    ["of another type", { type: "Opaque" }],
    ["without a type", { type: "" }],
    ["without data", { data: {} }],
    ["with an unknown use", { data: { ...ours.data, use: base64("party") } }],
    ["without a use", { data: { "work-id": base64("w") } }],
    ["without an item", { data: { use: base64("session") } }],
  ])("%s", (_, change) => expect(readJournal({ ...ours, ...change })).toBeNull());

  test("without any fields", () => {
    expect(readJournal({ metadata: {} })).toBeNull();
  });

  test("unlike a Secret of our type", () => {
    expect(ours.type).toBe(CLAIM_SECRET_TYPE);
    expect(readJournal(ours)).not.toBeNull();
  });

  test("reads a record of a version before lease: Operator as a worker's", () => {
    const { lease: _, ...data } = ours.data ?? {};
    expect(readJournal({ ...ours, data })?.lease).toBe("Worker");
  });

  test("reads invalid poll times as NaN, never as zero", () => {
    const odd = (value: string) => readJournal({ ...ours, data: { ...ours.data, "polled-from": base64(value) } });
    expect(odd("")?.polledFromMs).toBeNaN();
    expect(odd("soon")?.polledFromMs).toBeNaN();
    expect(odd("12")?.polledFromMs).toBe(12);
  });
});
