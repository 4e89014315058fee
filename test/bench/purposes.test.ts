import { expect, test } from "vitest";
import { purposesOf } from "../../bench/support/purposes.ts";
import type { AuditEntry } from "../../testbed/cluster/audit.ts";

function entry(request: string, name: string, code = 200): AuditEntry {
  const [verb = "", path = ""] = request.split(" ");
  const [resource = "", subresource = ""] = path.split("/");
  const where = { namespace: "agents", name, user: "operator", userAgent: "berth", receivedAt: 0, completedAt: 0 };
  return { verb, resource, subresource, code, ...where };
}

const said = (entries: AuditEntry[]) => purposesOf(entries).map(({ request, what, count }) => [request, what, count]);

test("the purpose of a request for a Pod depends on whether its claim is settled", () => {
  const requests = [
    "create secrets",
    "get pods",
    "patch pods",
    "delete secrets",
    "patch pods",
    "get pods",
    "delete pods",
  ];
  expect(said(requests.map((request) => entry(request, "pod-1")))).toEqual([
    ["create secrets", "the claim's record, which takes the Pod's slot", 1],
    ["get pods", "a live read before the acknowledgement", 1],
    ["patch pods", "its assignment, which makes the kubelet sync it", 1],
    ["delete secrets", "the record, once the item is settled", 1],
    ["patch pods", "its mark as finished, because it is kept", 1],
    ["get pods", "a live read before the deletion", 1],
    ["delete pods", "the Pod, after its item is settled", 1],
  ]);
});

test("a Pod whose claim was settled before the log begins counts as ended", () => {
  expect(said([entry("delete pods", "earlier")])).toEqual([["delete pods", "the Pod, after its item is settled", 1]]);
});

test("the most frequent requests come first, and rejected requests are counted separately", () => {
  const status = "patch environments/status";
  expect(said([entry("list nodes", ""), entry(status, "a"), entry(status, "b"), entry(status, "a", 409)])).toEqual([
    [status, "counts, at most every 5 s", 2],
    ["list nodes", "other", 1],
    [status, "counts, at most every 5 s, refused with 409", 1],
  ]);
});
