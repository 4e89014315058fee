import { seededRandom } from "../../../simulator/ids.ts";
import { ARRANGEMENTS } from "./features.ts";
import { EXCEPTIONS, FEATURES, type Feature, PROMISES, type Promised } from "./promises.ts";
import { type Active, type Message, MINUTE, SECOND, type Setting, Stage } from "./stage.ts";

/** One history: features that come together, over sessions with messages. */
export interface History {
  readonly features: readonly Feature[];
  readonly lease: "Worker" | "Operator";
  readonly seed: number;
  /** Whether sessions have volumes, whatever the features. */
  readonly hasVolumes?: boolean;
  /** How long it lasts. Each feature begins and ends at random times in it. By default, all of them last throughout. */
  readonly lastsMs?: number;
}

export interface Played {
  readonly wrongs: readonly string[];
  readonly log: readonly string[];
}

/** Sessions that sleep before anything happens. */
const SESSIONS = 3;
/** How long features last that come together, and within what time all of them begin, and end. */
const LASTS_MS = 3 * MINUTE;
const TOGETHER_MS = 10 * SECOND;
/** New sessions come this often. */
const NEW_EVERY_S = 45;

/** The most features that come together in a random history with a full cluster, and how long that lasts. */
const MOST = 3;
const HISTORY_MS = 5 * MINUTE;
const SEED_STRIDE = 101;

/** Several sessions of several messages in a full cluster, while other features come and go. */
export function randomHistory(from: number, index: number): History {
  const seed = from + SEED_STRIDE * index;
  const random = seededRandom(seed);
  const features = new Set<Feature>([random() < 1 / 2 ? "a full quota" : "a full node", "sleeping sessions"]);
  const count = features.size + (index % (MOST + 1));
  while (features.size < count) features.add(FEATURES[Math.floor(random() * FEATURES.length)] as Feature);
  const lease = random() < 1 / 2 ? "Worker" : "Operator";
  return { features: [...features], lease, seed, hasVolumes: random() < 1 / 4, lastsMs: HISTORY_MS };
}

/** Plays one history. */
export async function play({ features, lease, seed, hasVolumes = false, lastsMs }: History): Promise<Played> {
  const arrangements = features.map((feature) => ARRANGEMENTS[feature]);
  const set = arrangements.flatMap(({ setting }) => setting ?? []);
  const setting: Setting = {
    ...{ seed, lease, hasRival: false, hasStandby: false },
    ...Object.assign({}, ...set),
    hasVolumes: hasVolumes || set.some((own) => own.hasVolumes),
    sessions: Object.assign({}, ...set.map((own) => own.sessions)),
    options: Object.assign({}, ...set.map((own) => own.options)),
  };
  const stage = new Stage(withWorkspace(setting, features));
  const actives = features.map(
    (name): Active => ({
      ...{ name, promised: promisedOf(name, features), isOn: false },
      ...{ lingers: () => false, holdsOwn: () => false },
    }),
  );
  stage.active.push(...actives);
  const { world } = stage;
  world.createEnvironment();
  stage.rival?.createEnvironment();
  stage.rival?.startOperator();
  stage.serve();
  const sessions: string[] = [];
  const asleep = SESSIONS + arrangements.reduce((sum, { sleeping = 0 }) => sum + sleeping, 0);
  for (let n = 0; n < asleep; n += 1) sessions.push(stage.send().sessionId);
  await stage.until(
    "the first messages are served",
    () => world.isSettled && (stage.rival?.isSettled ?? true),
    5 * MINUTE,
  );
  await stage.pass(10);

  const endMs = lastsMs ?? LASTS_MS;
  for (const [index, active] of actives.entries()) {
    const { begin, end } = arrangements[index] ?? {};
    const fromMs = stage.between(0, lastsMs === undefined ? TOGETHER_MS : lastsMs / 2);
    stage.at(fromMs, () => {
      world.say(`begins: ${active.name}`);
      active.isOn = true;
      begin?.(stage, active);
    });
    stage.at(stage.between(lastsMs === undefined ? endMs - TOGETHER_MS : fromMs, endMs), () => {
      world.say(`ends: ${active.name}`);
      active.isOn = false;
      end?.(stage);
    });
  }
  await converse(stage, sessions, endMs / SECOND);
  await stage.end(sessions);
  return { wrongs: stage.wrongs, log: world.log };
}

/** Messages of all sessions for some seconds: the first ones soon, each next one some time after the last was served. */
async function converse(stage: Stage, sessions: readonly string[], seconds: number): Promise<void> {
  const next = sessions.map((sessionId) => ({ sessionId, atS: stage.between(0, 30), message: null as Message | null }));
  for (let second = 0; second < seconds; second += 1) {
    for (const each of next) {
      if (second < each.atS || stage.isBusy(each.sessionId)) continue;
      if (each.message) {
        each.message = null;
        each.atS = second + stage.between(20, 60);
      } else each.message = stage.send(each.sessionId);
    }
    // Two at a time, each of which may need a Pod that yields.
    if (second % NEW_EVERY_S === 10) for (let n = 0; n < 2; n += 1) stage.send();
    await stage.pass();
  }
}

/** What is promised for a feature in this company. */
function promisedOf(name: Feature, features: readonly Feature[]): Promised {
  const isOf = ({ pair }: (typeof EXCEPTIONS)[number]) => pair[0] === name && features.includes(pair[1]);
  return Object.assign({}, PROMISES[name], ...EXCEPTIONS.filter(isOf));
}

/** Sessions with volumes also sleep in their Pods, if their sleep is the other feature. */
function withWorkspace(setting: Setting, features: readonly Feature[]): Setting {
  if (!setting.hasVolumes) return setting;
  const { workspace: _, ...sessions } = setting.sessions;
  const workspace = {
    ...{ type: "PerSession", claimTemplate: { resources: { requests: { storage: "1Gi" } } }, retainSeconds: 60 },
    ...(features.includes("sleeping sessions") ? { sleepSeconds: 300 } : {}),
  };
  return { ...setting, sessions: { ...sessions, workspace } };
}
