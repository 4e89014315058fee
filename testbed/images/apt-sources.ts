import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** The release of a Debian or Ubuntu machine, and its package sources. */
export interface Distribution {
  /** For example `bookworm`. */
  readonly codename: string;
  /** One-line entries of sources.list(5), with the keyring of each. */
  readonly sources: readonly string[];
}

interface Source {
  readonly options: string;
  readonly uri: string;
  readonly suite: string;
  readonly components: string;
}

/**
 * Returns the distribution's own package sources as apt is configured here. Leaves out third-party sources, because
 * their suites aren't named after the release. Returns undefined on a machine without apt.
 * @param etc the folder `/etc`
 */
export async function distribution(etc: string = "/etc"): Promise<Distribution | undefined> {
  const release = await readFile(join(etc, "os-release"), "utf8").catch(() => "");
  const codename = /^VERSION_CODENAME="?([\w-]+)"?$/m.exec(release)?.[1];
  if (codename === undefined) return undefined;
  const apt = join(etc, "apt");
  const more = (await readdir(join(apt, "sources.list.d")).catch(() => [])).sort();
  const found: Source[] = [];
  for (const name of ["sources.list", ...more.map((file) => join("sources.list.d", file))]) {
    const text = await readFile(join(apt, name), "utf8").catch(() => "");
    if (name.endsWith(".list")) found.push(...oneLineSources(text));
    if (name.endsWith(".sources")) found.push(...deb822Sources(text));
  }
  const sources = found
    .filter(({ suite, components }) => suite.split("-")[0] === codename && components.split(" ").includes("main"))
    .map(({ options, uri, suite, components }) => ["deb", options, uri, suite, components].filter(Boolean).join(" "));
  return sources.length > 0 ? { codename, sources: [...new Set(sources)] } : undefined;
}

function oneLineSources(text: string): Source[] {
  return text.split("\n").flatMap((line) => {
    const [, options = "", uri = "", suite = "", components = ""] =
      /^deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+([^#]*)/.exec(line.trim()) ?? [];
    return uri === "" ? [] : [{ options: options.trim(), uri, suite, components: words(components).join(" ") }];
  });
}

/** Parses stanzas of `Field: value` with continuation lines and comments. Doesn't read an inline keyring. */
function deb822Sources(text: string): Source[] {
  const stanzas = text
    .split("\n")
    .filter((line) => !line.startsWith("#"))
    .join("\n")
    .split(/\n\s*\n/);
  return stanzas.flatMap((stanza) => {
    const fields = new Map(
      [...stanza.matchAll(/^([\w-]+):((?:.*\n?)(?:[ \t]+.*\n?)*)/gm)].map(([, name = "", value = ""]) => [
        name.toLowerCase(),
        words(value),
      ]),
    );
    const field = (name: string) => fields.get(name) ?? [];
    if (!field("types").includes("deb") || field("enabled")[0] === "no") return [];
    const [keyring] = field("signed-by");
    const options = keyring?.startsWith("/") ? `[signed-by=${keyring}]` : "";
    const components = field("components").join(" ");
    return field("uris").flatMap((uri) => field("suites").map((suite) => ({ options, uri, suite, components })));
  });
}

function words(text: string): string[] {
  return text.split(/\s+/).filter(Boolean);
}
