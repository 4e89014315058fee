import { expect, test } from "vitest";
import { isAlreadyExists, isConflict, isNotFound, KubeApiError } from "../../src/kube/errors.ts";

const error = (status: number, reason: string, details?: { name?: string }) =>
  new KubeApiError(reason, { status, reason, details });

test("an object that already exists is no conflict, and vice versa", () => {
  expect(isConflict(error(409, "AlreadyExists"))).toBe(false);
  expect(isConflict(error(409, "Conflict"))).toBe(true);
  expect(isAlreadyExists(error(409, "Conflict"))).toBe(false);
  expect(isAlreadyExists(error(409, "AlreadyExists"))).toBe(true);
});

test.each([
  ["a Status about the object", error(404, "NotFound", { name: "x" }), true],
  ["a Status about no object: the path is unknown", error(404, "NotFound", {}), false],
  ["a proxy's page", error(404, ""), false],
])("a 404 counts as absence only if it is about the object: %s", (_, answer, isAbsent) => {
  expect(isNotFound(answer)).toBe(isAbsent);
});
