import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../core/clock.ts";
import { ConfigError, errorText } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import { keyOfSecret } from "./signature.ts";

/** The kubelet updates a mounted Secret within a minute or two, so this interval hardly delays a rotation. */
const REREAD_MS = 10_000;
/** A few workspaces, with two secrets each during a rotation. Each secret costs one HMAC per delivery. */
const MAX_SECRETS = 32;

/**
 * The signing secrets in a folder, one per file, as in a mounted Secret. An endpoint of the platform has one secret,
 * and two during a rotation. If the folder can't be read again, the previous secrets stay in use.
 */
export class SigningSecrets {
  readonly #folder: string;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #keys: readonly Buffer[] = [];
  #readMs = Number.NEGATIVE_INFINITY;
  #reading: Promise<void> | null = null;

  private constructor(options: { folder: string; clock: Clock; logger: Logger }) {
    this.#folder = options.folder;
    this.#clock = options.clock;
    this.#logger = options.logger;
  }

  /** @throws ConfigError if the folder has no secret. */
  static async open(options: { folder: string; clock: Clock; logger: Logger }): Promise<SigningSecrets> {
    const secrets = new SigningSecrets(options);
    try {
      await secrets.#read();
    } catch (error) {
      throw new ConfigError(`--webhook-secrets: ${options.folder} cannot be read: ${errorText(error)}`, {
        cause: error,
      });
    }
    if (secrets.#keys.length > 0) return secrets;
    throw new ConfigError(
      `--webhook-secrets: no file in ${options.folder} has a signing secret (whsec_...); copy it from the endpoint in the console`,
    );
  }

  /** The keys in use. Never throws. */
  async keys(): Promise<readonly Buffer[]> {
    if (this.#clock.monotonic() - this.#readMs >= REREAD_MS) {
      this.#reading ??= this.#read()
        .catch((error: unknown) => {
          this.#logger.warn(
            { error: errorText(error) },
            "cannot read the signing secrets, so the earlier ones stay in use",
          );
          this.#readMs = this.#clock.monotonic();
        })
        .finally(() => {
          this.#reading = null;
        });
      await this.#reading;
    }
    return this.#keys;
  }

  async #read(): Promise<void> {
    const entries = await readdir(this.#folder, { withFileTypes: true });
    // A mounted Secret keeps its real files in hidden folders, with links to them.
    const names = entries
      .filter((entry) => !entry.name.startsWith(".") && !entry.isDirectory())
      .map(({ name }) => name);
    const keys: Buffer[] = [];
    for (const name of names.sort().slice(0, MAX_SECRETS)) {
      const key = keyOfSecret((await readFile(join(this.#folder, name), "utf8")).trim());
      if (key) keys.push(key);
      else
        this.#logger.warn({ file: name }, "the file has no signing secret; write whsec_..., as the console shows it");
    }
    this.#keys = keys;
    this.#readMs = this.#clock.monotonic();
  }
}
