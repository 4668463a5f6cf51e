// Asks the service for the plan that the fields name, and shows what it says; nothing is computed here but formats.
const start = JSON.parse(document.getElementById("start").textContent);
const at = (id) => document.getElementById(id);
const DECADES = 3; // that a slider of a rate or a limit spans, around what was asked first
const AXES = {
  rate: { first: start.rate, logarithmic: true, middle: start.rate },
  floor: { first: start.floor, logarithmic: false, middle: 0.5 },
  seconds: { first: start.seconds, logarithmic: true, middle: start.seconds ?? 2 },
};
const valueAt = (axis, place) => Number((axis.logarithmic ? axis.middle * 10 ** (DECADES * (place / 1000 - 0.5)) : place / 1000).toPrecision(3));
const placeOf = (axis, value) => 1000 * (axis.logarithmic ? Math.log10(value / axis.middle) / DECADES + 0.5 : value);

let asked = null; // the question whose answer is awaited

const question = () => {
  const scenario = JSON.parse(at("scenario").value);
  const first = scenario.workload[0];
  for (const other of ["qps", "concurrency", "requests_per_day"]) if (other !== start.field) delete first[other];
  first[start.field] = Number(at("rate").value);
  if (at("floor").value === "") delete first.min_quality;
  else first.min_quality = Number(at("floor").value);
  first.slo = { ...first.slo, [start.limit]: at("seconds").value === "" ? "none" : `${at("seconds").value}s` };
  return scenario;
};

const money = (usd, digits) => usd.toLocaleString("en", { style: "currency", currency: "USD", maximumFractionDigits: digits });
const latency = (ms) => (ms === null || ms === undefined ? "-" : ms < 1000 ? `${ms.toPrecision(3)} ms` : `${(ms / 1000).toPrecision(3)} s`);

const proven = (status, gap) => {
  const most = gap === null ? "an unknown amount" : `${Number((100 * gap).toPrecision(2))} %`;
  return status !== "optimal" ? `not yet: the search was stopped, and something may be cheaper by ${most}` : gap ? `nothing is cheaper by more than ${most}` : "nothing is cheaper";
};

const facts = (plan) => {
  const first = plan.workloads[0];
  const served = first.predicted;
  const rows = [
    ["GPUs", `${plan.gpus_held} = ${plan.deployments.map((d) => `${d.replicas} x TP${d.tp} ${d.gpu}`).join(" + ")}`],
    ["model", plan.deployments.map((d) => `${d.checkpoint} (${d.engine})`).join(", ")],
    ["bought at", plan.purchases.map((p) => `${p.provider} ${p.region}`).join(", ")],
    ["quality", first.min_quality_served === null ? "-" : first.min_quality_served.toFixed(4)],
    ["TTFT p95", latency(served?.ttft_ms?.p95)],
    ["TPOT p95", latency(served?.tpot_ms?.p95)],
    ["$ per million output tokens", plan.cost.usd_per_million_output_tokens === null ? "-" : money(plan.cost.usd_per_million_output_tokens, 3)],
    ["proven", proven(plan.status, plan.gap)],
  ];
  return rows.flatMap(([name, text]) => [Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: text })]);
};

const show = (status, text) => {
  const found = JSON.parse(text);
  const is_plan = status === 200;
  at("usd").textContent = is_plan ? `${money(found.cost.usd_per_hour, 2)}/h` : status === 409 ? "no plan" : "no answer";
  at("month").textContent = is_plan ? `${money(found.cost.usd_per_month, 0)} per month` : "";
  at("why").hidden = is_plan;
  at("why").textContent = is_plan ? "" : found.error;
  at("facts").replaceChildren(...(is_plan ? facts(found) : []));
  at("warnings").replaceChildren(...(is_plan ? found.warnings : (found.changes ?? [])).map((line) => Object.assign(document.createElement("li"), { textContent: line })));
  at("plan").textContent = text;
};

const ask = async (scenario) => {
  asked?.abort();
  const mine = (asked = new AbortController());
  at("answer").setAttribute("aria-busy", "true");
  at("scenario").value = JSON.stringify(scenario, null, 1);
  try {
    const reply = await fetch("/plan", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(scenario), signal: mine.signal });
    show(reply.status, await reply.text());
  } catch (error) {
    if (mine.signal.aborted) return;
    show(0, JSON.stringify({ error: `the service does not answer: ${error.message}` }));
  }
  at("answer").setAttribute("aria-busy", "false");
};

const set = (name, value) => {
  at(name).value = value ?? "";
  if (value !== null && value !== "") at(`${name}-range`).value = String(placeOf(AXES[name], Number(value)));
};
for (const [name, axis] of Object.entries(AXES)) {
  at(`${name}-range`).addEventListener("input", (event) => (at(name).value = String(valueAt(axis, Number(event.target.value)))));
  at(`${name}-range`).addEventListener("change", () => ask(question()));
  at(name).addEventListener("change", (event) => (set(name, event.target.value), ask(question())));
}
const reset = () => {
  for (const [name, axis] of Object.entries(AXES)) set(name, axis.first);
  ask(start.scenario);
};
at("reset").addEventListener("click", reset);
at("ask").addEventListener("click", () => {
  try {
    ask(JSON.parse(at("scenario").value));
  } catch (error) {
    show(0, JSON.stringify({ error: `no JSON: ${error.message}` }));
  }
});
at("rate-unit").textContent = start.unit;
at("limit").textContent = `TTFT limit (${start.limit.split("_")[1]})`;
reset();
