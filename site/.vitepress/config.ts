import { readFile } from "node:fs/promises";
import { defineConfig } from "vitepress";
import { anchorOf } from "../anchors.ts";
import { sidebars } from "../navigation.ts";
import { addressOf, LANDING, pagesOf, ROOT } from "../pages.ts";
import promql from "./promql.json" with { type: "json" };

/** The path of the site: `/`, or the path of a project's pages on a forge. */
const base = process.env.SITE_BASE || "/";
/** The repository on its forge, if known. */
const repository = process.env.SITE_REPOSITORY;

const pages = await pagesOf();
const { version } = JSON.parse(await readFile(`${ROOT}package.json`, "utf8"));

export default defineConfig({
  title: "Berth",
  description: "Kubernetes operator for self-hosted agent sandboxes",
  lang: "en",
  base,
  srcDir: ".pages",
  rewrites: Object.fromEntries([...pages, LANDING].map((page) => [page, addressOf(page)])),
  outDir: "dist",
  head: [["link", { rel: "icon", href: `${base}icon.svg` }]],
  // Keep the `.html` endings: a page and a folder may have the same name, and hosts differ in which they show.
  cleanUrls: false,
  // The build fails on a dead link.
  ignoreDeadLinks: false,
  markdown: {
    // Anchors match those of forges, so that a link works on both.
    anchor: { slugify: anchorOf },
    languages: [promql],
    // Names such as <environment> in prose are text. So are braces, which Vue would take for expressions.
    html: false,
    config: ({ renderer, utils }) => {
      const escaped = (text: string) => utils.escapeHtml(text).replaceAll("{{", "&#123;&#123;");
      renderer.rules.text = (tokens, index) => escaped(tokens[index]?.content ?? "");
      renderer.rules.code_inline = (tokens, index) => `<code>${escaped(tokens[index]?.content ?? "")}</code>`;
    },
  },
  themeConfig: {
    logo: "/icon.svg",
    nav: [
      { text: "Quick start", link: "/docs/quick-start" },
      { text: "Troubleshooting", link: "/docs/troubleshooting" },
      { text: "Reference", link: "/docs/spec/environment" },
      { text: "For maintainers", link: "/CONTRIBUTING" },
      { text: `v${version}`, link: "/CHANGELOG" },
    ],
    sidebar: await sidebars(pages),
    outline: [2, 3],
    search: { provider: "local" },
    ...(repository && {
      socialLinks: [{ icon: "github", link: repository }],
      editLink: { pattern: `${repository}/edit/main/:path` },
    }),
  },
});
