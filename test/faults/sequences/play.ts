import { realClock, sleep } from "../../../src/core/clock.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { expectEnd } from "./end.ts";
import { calm, linger, perform } from "./perform.ts";
import { Stage } from "./stage.ts";
import { type Kind, type Sequence, sequenceText } from "./steps.ts";
import type { Tally } from "./tally.ts";

/** Lines of the operators' logs that a failure shows. */
const LINES_SHOWN = Number(process.env["BERTH_FAULTS_LOG"] ?? 60);

/** A sequence that failed: what was wrong, what was done, and the end of the log. */
export class SequenceError extends Error {
  constructor(sequence: Sequence, wrongs: readonly string[], log: readonly string[], options?: ErrorOptions) {
    super(
      [...wrongs, "the sequence:", sequenceText(sequence), "the end of the log:", ...log.slice(-LINES_SHOWN)].join(
        "\n",
      ),
      options,
    );
    this.name = "SequenceError";
  }
}

/** Plays one sequence in a namespace of its own, to the deletion of its Environment. @throws SequenceError */
export async function play(cluster: TestCluster, sequence: Sequence, seed: number, tally: Tally): Promise<void> {
  const struck = (kind: Kind) => tally.struck(kind);
  await using stage = await Stage.start(cluster, sequence.setting, seed, struck);
  const { witness } = stage;
  try {
    for (const step of sequence.steps) {
      await sleep(realClock, step.afterMs);
      stage.log.write(`--- ${step.kind} (choice ${step.choice})`);
      tally.taken(step.kind);
      if (await perform(stage, step)) struck(step.kind);
    }
    await linger(stage);
    stage.log.write("--- calm");
    await calm(stage);
    await expectEnd(stage);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    await witness.settled().catch(() => {});
    throw new SequenceError(sequence, [...witness.wrongs, text], stage.log.lines, { cause: error });
  } finally {
    tally.checked(witness.checked);
  }
  if (witness.wrongs.length > 0) throw new SequenceError(sequence, witness.wrongs, stage.log.lines);
}
