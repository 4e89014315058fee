import { expect, test } from "vitest";
import { inTurns } from "./turns.ts";

test("a server that does not answer for a while does not end a run", async () => {
  const played: number[] = [];
  const letGo = Promise.withResolvers<void>();
  let asked = 0;
  const answers = async () => {
    asked += 1;
    letGo.resolve();
    throw new Error("no answer within 30 s");
  };
  const play = async (index: number) => {
    if (index === 0) await letGo.promise;
    played.push(index);
  };
  await inTurns(3, { most: 2, answers }, play);
  expect(played).toEqual([0, 1, 2]);
  expect(asked).toBeGreaterThan(0);
});
