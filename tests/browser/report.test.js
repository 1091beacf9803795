// The reports of `muster-sim`, opened from disk in a browser: charts are drawn, nothing is fetched, all can be read.
//
// MUSTER_SIM names the program. The pages come from runs made here: the demo, a scenario in virtual time with faults
// and a goal that it misses, and three runs that took turns.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { LOOKS, fitsItsWidth, nothingOverlaps, openBrowser, textIsLegible, visit } from "./harness.js";

const SCENARIO = `
name = "a bad week"
devices = 200
seed = 5
for = "7d"
slo = ["renew.p99<1ms"]
[server]
lifetime = "2d"
[link]
delay = "40ms"
jitter = "200ms"
loss = 0.02
[hostile]
wrong_id = 0.02
foreign_certificate = 0.02
[[event]]
at = "30h"
what = "ca-away"
for = "6h"
[[event]]
at = "4d"
what = "revoke"
share = 0.1
[[event]]
at = "5d"
what = "reboot"
`;

let browser;
let folder;
const file = (name) => path.join(folder, name);

function muster(args, mayFail = false) {
  const program = process.env.MUSTER_SIM;
  assert.ok(program, "MUSTER_SIM names the program");
  try {
    execFileSync(program, args, { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
  } catch (error) {
    assert.ok(mayFail && error.status === 1, `${args.join(" ")}: ${error.stderr}`);
  }
}

/** Results as three targets that took turns have them. */
function inTurns(run) {
  const named = (label, dearer) => {
    const turn = (noise) => ({
      ...run.costs,
      operations: 60,
      client_cpu_ms: 30,
      server_cpu_ms: { 7: 18 * dearer * noise },
      least_ms: 9,
    });
    const turns = [turn(1), turn(1.1), turn(0.95)];
    return { ...run, label, target: `https://${label}.example.test:443/`, command: "edge", turns, costs: turns[0], checks: [] };
  };
  return { format: run.format, runs: [named("ours", 1), named("nginx", 2.7), named("mosquitto", 4.1)] };
}

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "muster-report-"));
  writeFileSync(file("week.toml"), SCENARIO);
  muster(["demo", "--exit", "--devices", "60", "--report", "demo.html", "--json", "demo.json"]);
  muster(["scenario", "week.toml", "--quiet", "--report", "scenario.html"], true);
  writeFileSync(file("turns.json"), JSON.stringify(inTurns(JSON.parse(readFileSync(file("demo.json"))))));
  muster(["compare", "turns.json", "--report", "comparison.html"]);
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  if (folder) rmSync(folder, { recursive: true });
});

/** What each chart shows, measured in the page. */
async function charts(page) {
  return page.$$eval("figure svg", (drawings) =>
    drawings.map((svg) => {
      const box = svg.getBoundingClientRect();
      const lines = [...svg.querySelectorAll("polyline")].map((line) => {
        const own = line.getBoundingClientRect();
        const style = getComputedStyle(line);
        return {
          points: line.points.numberOfItems,
          length: line.getTotalLength(),
          inside: own.left >= box.left - 2 && own.right <= box.right + 2 && own.top >= box.top - 2 && own.bottom <= box.bottom + 2,
          visible: style.stroke !== "none" && parseFloat(style.strokeWidth) > 0,
        };
      });
      const texts = [...svg.querySelectorAll("text")].map((text) => text.getBoundingClientRect());
      const cut = texts.filter((text) => text.left < box.left || text.right > box.right || text.bottom > box.bottom).length;
      return { cut, name: svg.parentElement.getAttribute("aria-label"), width: box.width, height: box.height, ticks: svg.querySelectorAll("text").length, lines };
    }),
  );
}

async function chartsAreDrawn(page, names) {
  const drawn = await charts(page);
  for (const name of names) {
    assert.ok(drawn.some((chart) => chart.name === name), `${name} is missing; there are ${drawn.map((chart) => chart.name)}`);
  }
  for (const chart of drawn) {
    assert.equal(chart.cut, 0, `texts of ${chart.name} are cut off`);
    assert.ok(chart.width > 300 && chart.height > 80 && chart.ticks > 3, JSON.stringify(chart));
    assert.ok(chart.lines.length > 0 && chart.lines.some((line) => line.points > 0), JSON.stringify(chart));
    for (const line of chart.lines) {
      assert.ok(line.inside && line.visible && (line.points < 2 || line.length > 0), JSON.stringify(chart));
    }
  }
}

async function barsAreDrawn(page, title, least) {
  const widths = await page.$$eval("figure", (figures, title) => {
    const figure = figures.find((figure) => figure.querySelector("figcaption").textContent === title);
    return [...(figure?.querySelectorAll(".bar") ?? [])].map((bar) => bar.getBoundingClientRect().width);
  }, title);
  assert.ok(widths.length >= least && widths.every((width) => width > 0), `${title}: ${widths}`);
}

const PAGES = {
  demo: async (page) => {
    await chartsAreDrawn(page, ["Latency by percentile"]);
    assert.equal(await page.locator(".checks .held").count(), 14);
  },
  scenario: async (page) => {
    await chartsAreDrawn(page, ["Latency over time", "Rate over time", "Latency by percentile"]);
    await barsAreDrawn(page, "Failures by reason", 3);
    assert.match(await page.locator(".checks .missed").innerText(), /renew.p99<1ms/);
  },
  comparison: async (page) => {
    await chartsAreDrawn(page, ["Latency by percentile, main series of each run"]);
    await barsAreDrawn(page, "CPU of the server per certificate", 4);
    const rows = await page.locator("h3 ~ .wide").first().locator("tbody tr").allInnerTexts();
    assert.equal(rows.length, 3);
    assert.match(rows[0], /^ours\s.*1\.00 \[1\.00\.\.1\.00\]$/);
    assert.match(rows[1], /^nginx\s.*2\.70 \[2\.70\.\.2\.70\]$/);
  },
};

for (const [name, check] of Object.entries(PAGES)) {
  for (const appearance of LOOKS) {
    test(`the ${name} page in ${appearance.name}`, async () => {
      await visit(browser, pathToFileURL(file(`${name}.html`)).href, appearance, `report-${name}`, async (page) => {
        const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        const bright = background.match(/\d+/g).map(Number)[0] > 128;
        assert.equal(bright, appearance.colorScheme === "light", background);
        await fitsItsWidth(page);
        await textIsLegible(page);
        await nothingOverlaps(page, "svg text");
        await check(page);
      });
    });
  }
}
