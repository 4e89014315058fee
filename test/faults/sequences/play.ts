import { realClock, sleep } from "../../../src/core/clock.ts";
import type { TestCluster } from "../../support/cluster.ts";
import type { Mode, Sequence } from "./mode.ts";
import type { Stage } from "./stage.ts";
import type { Tally } from "./tally.ts";

/** Lines of the operators' logs that a failure shows. */
const LINES_SHOWN = Number(process.env["BERTH_FAULTS_LOG"] ?? 60);

/** A failed sequence: what was wrong, the steps, and the end of the log. */
export class SequenceError extends Error {
  constructor(sequence: string, wrongs: readonly string[], log: readonly string[], options?: ErrorOptions) {
    super(
      [...wrongs, "the sequence:", sequence, "the end of the log:", ...log.slice(-LINES_SHOWN)].join("\n"),
      options,
    );
    this.name = "SequenceError";
  }
}

/** Plays one sequence in its own namespace, up to the deletion of its Environment. @throws SequenceError */
export async function play<Kind extends string, Setting extends object, Played extends Stage>(
  mode: Mode<Kind, Setting, Played>,
  cluster: TestCluster,
  sequence: Sequence<Kind, Setting>,
  seed: number,
  tally: Tally,
): Promise<void> {
  const struck = (kind: string) => tally.struck(kind);
  await using stage = await mode.start(cluster, sequence.setting, seed, struck);
  const { witness } = stage;
  try {
    for (const step of sequence.steps) {
      await sleep(realClock, step.afterMs);
      stage.log.write(`--- ${step.kind} (choice ${step.choice})`);
      tally.taken(step.kind);
      if (await mode.perform(stage, step)) struck(step.kind);
    }
    await stage.linger();
    stage.log.write("--- calm");
    await mode.calm(stage);
    await mode.expectEnd(stage);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    await witness.settled().catch(() => {});
    throw new SequenceError(mode.text(sequence), [...witness.wrongs, text], stage.log.lines, { cause: error });
  } finally {
    tally.checked(witness.checked);
  }
  if (witness.wrongs.length > 0) throw new SequenceError(mode.text(sequence), witness.wrongs, stage.log.lines);
}
