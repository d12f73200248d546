// Opens a page in headless Chromium at two widths, light and dark, and says as JSON what is wrong with it.
//
//   node browser.mjs URL MODULES        MODULES: a folder with playwright-core and axe-core
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [url, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const found = { findings: [], overflow: [], hosts: [], said: [], focus: [], slider: "", round: "" };
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: quiet });

const page = await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage();
page.on("console", (message) => found.said.push(message.text()));
page.on("pageerror", (error) => found.said.push(error.message));
page.on("request", (request) => found.hosts.push(new URL(request.url()).host));
await page.goto(url);
for (let left = 40; left > 0; left -= 1) {
  await page.keyboard.press("Tab");
  found.focus.push(await page.evaluate(() => {
    const at = document.activeElement;
    return at.dataset.chart ?? at.getAttribute("aria-label") ?? (at.id || at.tagName.toLowerCase());
  }));
}
await page.focus("input[data-chart=loss]");
await page.keyboard.press("ArrowLeft");
found.slider = await page.getAttribute("input[data-chart=loss]", "aria-valuetext");
found.round = await page.textContent("#latest-loss .at");
if (url.startsWith("http")) {
  await page.waitForFunction(() => document.title.startsWith("9/"), null, { timeout: 60000 });
}

// axe comes by an evaluated script, which the page's own policy forbids
const bare = await (await browser.newContext({ bypassCSP: true })).newPage();
await bare.goto(url);
await bare.evaluate(axe);
for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 400]) {
    await bare.emulateMedia({ colorScheme });
    await bare.setViewportSize({ width, height: 800 });
    const { violations } = await bare.evaluate(() => axe.run());
    found.findings.push(...violations.map((one) => `${colorScheme} ${width}: ${one.id}: ${one.nodes[0].html}`));
    found.overflow.push(await bare.evaluate(() => document.documentElement.scrollWidth - innerWidth));
  }
}
await browser.close();
console.log(JSON.stringify(found));
