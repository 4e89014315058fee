import { test } from "vitest";
import { readFaultSettings } from "../support/settings.ts";
import { holds } from "./pairs.ts";
import { randomHistory } from "./play.ts";

const { long: isLong, sample: isSample, seed } = readFaultSettings();

const COUNT = isLong ? 300 : isSample ? 8 : 30;

test.each(Array.from({ length: COUNT }, (_, index) => index))("random history %i in a full cluster", async (index) => {
  await holds(randomHistory(seed, index));
});
