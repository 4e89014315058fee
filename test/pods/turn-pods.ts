import {
  ANNOTATION_ENDED_TURN,
  ANNOTATION_PARKING,
  ANNOTATION_SESSION_CONTAINER,
  ANNOTATION_TURN_CONTAINER,
  LABEL_PHASE,
} from "../../src/api/names.ts";
import type { ContainerState, Pod } from "../../src/kube/resource.ts";
import { keeperOf, turnName } from "../../src/pods/turns.ts";
import { PREPARED, pod, SESSION } from "./pods.ts";

export interface TurnsPod {
  readonly name?: string;
  readonly phase?: "warm" | "running" | "sleeping" | "ended" | undefined;
  /** The last turn whose end is on record. */
  readonly ended?: number;
  /** The states of the turns' containers, by number; undefined: the kubelet has not reported the turn yet. */
  readonly turns?: Readonly<Record<number, ContainerState | undefined>>;
  /** Their containers' ids. */
  readonly ids?: Readonly<Record<number, string>>;
  /** The states of other ephemeral containers, by name. */
  readonly others?: Readonly<Record<string, ContainerState>>;
  readonly keeper?: ContainerState;
  /** The id of the container in which the last turn was claimed. */
  readonly claimedIn?: string | undefined;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly metadata?: Partial<Pod["metadata"]>;
  readonly status?: Pod["status"];
}

/** A Pod whose sessions can sleep, on a node, with its keeper running. */
export function turnsPod(of: TurnsPod = {}): Pod {
  const { name = "berth-research-x", phase = "warm", ended = 0, turns = {}, ids = {}, others = {} } = of;
  const numbers = Object.keys(turns).map(Number);
  const { keeper = { running: { startedAt: "2030-01-01T00:00:00Z" } } } = of;
  const statuses = numbers.flatMap((turn) => {
    const [state, id] = [turns[turn], ids[turn]];
    return state ? [{ name: turnName(turn), state, ...(id !== undefined && { containerID: id }) }] : [];
  });
  return pod(
    {
      phase: "Running",
      conditions: PREPARED,
      containerStatuses: [{ name: SESSION, state: keeper }],
      ephemeralContainerStatuses: [
        ...statuses,
        ...Object.entries(others).map(([other, state]) => ({ name: other, state })),
      ],
      ...of.status,
    },
    {
      metadata: {
        ...{ name, namespace: "agents", labels: { [LABEL_PHASE]: phase } },
        annotations: {
          [ANNOTATION_SESSION_CONTAINER]: SESSION,
          [ANNOTATION_PARKING]: "Shell",
          [ANNOTATION_ENDED_TURN]: String(ended),
          ...(of.claimedIn !== undefined && { [ANNOTATION_TURN_CONTAINER]: of.claimedIn }),
          ...of.annotations,
        },
        ...of.metadata,
      },
      spec: {
        containers: [keeperOf({ name: SESSION, image: "worker:1", command: ["worker"] })],
        ephemeralContainers: [...numbers.map(turnName), ...Object.keys(others)].map((each) => ({ name: each })),
      },
    },
  );
}
