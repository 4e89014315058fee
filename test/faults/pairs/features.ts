import { PODS, SECRETS, type Taint } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { NAME, NAMESPACE } from "../../sessions/loops/loop-world.ts";
import { TEMPLATE } from "../../sessions/loops/sleepy-world.ts";
import { type KUBE_ANSWERS, kubeRefusal, type WorkAnswer, workRefusal } from "../matrix/answers.ts";
import { KUBE_ROWS, kubeCallOf, WORK_ROWS } from "../matrix/calls.ts";
import type { Feature } from "./promises.ts";
import { type Active, SECOND, type Setting, type Stage } from "./stage.ts";

/** How a feature is arranged. Everything is optional: `new sessions waiting` only sends messages. */
export interface Arrangement {
  /** What it sets before the history begins. */
  readonly setting?: Partial<Setting>;
  /** How many sessions sleep before it begins. */
  readonly sleeping?: number;
  readonly begin?: (stage: Stage, active: Active) => void;
  readonly end?: (stage: Stage) => void;
}

/** New sessions that come at once. */
const CROWD = 12;
const NODE = "node-1";
const PREPARE_SECONDS = 60;

/** The rows of the fault matrix that every design has. A refused mark of sleeping Pods costs files, as Ready says. */
const FAULTS = [...Object.keys(KUBE_ROWS), ...Object.keys(WORK_ROWS)].filter((row) => !/ephemeral|sleeping/.test(row));
const STATUSES = ["403", "409", "429", "500", "503"] as const satisfies readonly (typeof KUBE_ANSWERS)[number][];

const crowd = (stage: Stage) => {
  for (let n = 0; n < CROWD; n += 1) stage.send();
};

const taint = (key: string, effect: string): Taint => ({ key, effect });

/** Messages wait while no operator serves, also after the end. */
function awaitsOperator(stage: Stage, active: Active): void {
  const isUnserved = () => stage.serving === null;
  Object.assign(active, { holdsOwn: isUnserved, lingers: isUnserved });
}

/** Repeats an act while the feature lasts. */
function repeat(stage: Stage, active: Active, everyMs: () => number, act: () => void): void {
  const next = () =>
    stage.at(everyMs(), () => {
      if (!active.isOn) return;
      act();
      next();
    });
  next();
}

export const ARRANGEMENTS: Readonly<Record<Feature, Arrangement>> = {
  "new sessions waiting": { begin: crowd },
  "sleeping sessions": { sleeping: 5 },
  "a full quota": {
    begin: (stage) => {
      stage.quota = stage.podCount;
    },
    end: (stage) => {
      stage.quota = Number.POSITIVE_INFINITY;
    },
  },
  "a full node": {
    begin: (stage) => {
      stage.room = stage.podCount;
    },
    end: (stage) => {
      stage.room = Number.POSITIVE_INFINITY;
    },
  },
  "starts that fail": {
    begin: (stage, active) => {
      stage.isBroken = (image) => image === "worker:1";
      // The next probe comes after as long a pause as the fault lasted.
      active.lingers = () => stage.world.conditionOf("SessionsStarting")?.reason === "StartsFailing";
    },
    end: (stage) => {
      stage.isBroken = () => false;
    },
  },
  paused: {
    setting: { sessions: { workspace: { type: "Pod", sleepSeconds: 120 } } },
    begin: (stage) => stage.spec({ paused: true }),
    end: (stage) => stage.spec({ paused: false }),
  },
  "deletion of the Environment": {
    begin: (stage, active) => {
      active.lingers = () => !stage.world.environment || stage.recreates;
      stage.world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    },
    end: (stage) => {
      stage.recreates = true;
    },
  },
  "a changed template": {
    begin: (stage) => {
      const [container] = TEMPLATE.spec.containers;
      const template = { spec: { ...TEMPLATE.spec, containers: [{ ...container, image: "worker:2" }] } };
      stage.spec({ sessions: { template } });
    },
  },
  "a drained node": {
    begin: (stage, active) => {
      stage.closed.add(NODE);
      stage.taint(NODE, { unschedulable: true });
      repeat(
        stage,
        active,
        () => 3 * SECOND,
        () => {
          const [pod] = [...stage.pods.values()].filter(({ node, isGoing }) => node === NODE && !isGoing);
          if (!pod) return;
          stage.deleted.add(pod.name);
          stage.world.server.delete(PODS, NAMESPACE, pod.name);
        },
      );
    },
    end: (stage) => {
      stage.closed.delete(NODE);
      stage.taint(NODE, { unschedulable: null });
    },
  },
  "a silent node": {
    setting: { sessions: { prepareTimeoutSeconds: PREPARE_SECONDS } },
    begin: (stage, active) => {
      stage.closed.add(NODE);
      stage.isSilent = (name) => active.isOn && stage.pods.get(name)?.node === NODE;
      active.holdsOwn = ({ sessionId }) => stage.sleeperOf(sessionId)?.node === NODE;
      // Their connections break one by one.
      for (const name of stage.pods.keys())
        stage.at(stage.between(0, 3 * SECOND), () => stage.cutStreams((pod) => pod === name && stage.isSilent(name)));
      stage.at(40 * SECOND, () => {
        if (!active.isOn) return;
        const key = "node.kubernetes.io/unreachable";
        stage.taint(NODE, { taints: [taint(key, "NoSchedule"), taint(key, "NoExecute")] });
      });
    },
    end: (stage) => {
      stage.closed.delete(NODE);
      stage.taint(NODE, { taints: null });
    },
  },
  volumes: { setting: { hasVolumes: true } },
  "maxConcurrent reached": {
    setting: { sessions: { maxConcurrent: 4 } },
    begin: (stage, active) => {
      const some = () => {
        for (let n = 0; n < 6; n += 1) stage.send();
      };
      some();
      repeat(stage, active, () => 40 * SECOND, some);
    },
  },
  "maxSleeping reached": {
    setting: { sessions: { maxSleeping: 3 } },
  },
  "two operators": { setting: { hasRival: true } },
  "shards moving": {
    setting: { hasStandby: true, options: { shards: 2 } },
    begin: (stage, active) => {
      repeat(
        stage,
        active,
        () => stage.between(20, 50) * SECOND,
        () => {
          const { serving, standby } = stage;
          if (!serving || !standby) return;
          stage.serving = null;
          stage.standby = serving;
          void serving.leave().then(() => {
            standby.take();
            stage.serving = standby;
          });
        },
      );
      awaitsOperator(stage, active);
    },
  },
  restarts: {
    begin: (stage, active) => {
      let isDue = false;
      repeat(
        stage,
        active,
        () => stage.between(15, 40) * SECOND,
        () => {
          isDue = true;
        },
      );
      // In the middle of a claim or a removal, which both begin with a Secret.
      stage.world.server.subscribe(({ plural, type }) => {
        if (!isDue || !active.isOn || plural !== SECRETS.plural || type !== "ADDED") return;
        isDue = false;
        stage.at(stage.between(0, stage.pick([0.05, 1.5])) * SECOND, () => {
          const { serving } = stage;
          if (!serving) return;
          stage.serving = null;
          serving.kill();
          // A standby waits until the Lease has expired.
          stage.at(stage.standby ? 15 * SECOND : stage.between(0.1, stage.pick([2, 15])) * SECOND, () => stage.serve());
        });
      });
      awaitsOperator(stage, active);
    },
  },
  "one fault of the matrix": {
    begin: (stage, active) => {
      const call = stage.pick(FAULTS as [string, ...string[]]);
      const answer = stage.pick(STATUSES);
      stage.world.say(`fault: ${call} ${answer}`);
      stage.refusals.push((request) => {
        if (active.isOn && kubeCallOf(request) === call) throw kubeRefusal(answer, request);
      });
      const { api } = stage.world;
      api.answer = (of, { headers }) => {
        const isOperators = headers["anthropic-worker-id"] !== undefined;
        return active.isOn && isOperators && of === call ? workRefusal(answer as WorkAnswer) : undefined;
      };
      const { lingers } = active;
      active.lingers = () => lingers() || stage.world.conditionOf("SessionsStarting")?.reason === "StartsFailing";
    },
  },
};
