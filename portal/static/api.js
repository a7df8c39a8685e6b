// The description of the API, drawn from what the portal says of itself.

import { card, fill, grid, h } from "./dom.js";
import { ask } from "./store.js";

const PATHS = ["/openapi.json", "/openapi/openapi.json"];
const ERROR = '{"error": ..., "hint": ...}';
const DEEP = 6; // levels of a shape that are shown

export function api(main) {
  const at = h("div.wide.stack", { id: "api" });
  fill(main, at);
  begin().catch((error) => fill(at, card("API", h("p", {}, error.message))));

  async function begin() {
    let found, from;
    for (const path of PATHS) {
      try { found = await ask(from = path); break; } catch (error) { if (error.code !== 404 || path === PATHS.at(-1)) throw error; }
    }
    fill(at, card("API", h("p", {}, found.info?.description ?? ""),
      h("p", {}, "A program sends the token of the link as a bearer. The whole description: ", h("a", { href: from, target: "_blank", rel: "noopener" }, "openapi.json")),
      h("pre", {}, `curl -H "Authorization: Bearer $TOKEN" ${location.origin}/api/status`)),
    Object.entries(found.paths).flatMap(([path, methods]) => Object.entries(methods).filter(([, one]) => one.responses).map(([method, one]) => route(found, path, method, one))));
  }
  return { update: () => {} };
}

function route(found, path, method, one) {
  const body = one.requestBody?.content?.["application/json"]?.schema;
  const takes = (one.parameters ?? []).filter((each) => each.in !== "header");
  return h("details.card", {}, h("summary", {}, h(`span.badge.${method === "get" ? "RUNNING" : "PAUSED"}`, {}, method.toUpperCase()), " ", h("b.mono", {}, path), " ", h("span.soft", {}, one.summary ?? "")),
    one.description && one.description !== one.summary ? h("p", {}, one.description) : null,
    takes.length ? [h("h2", {}, "Takes"), grid(["name", "in", "type", ""], takes.map((each) => [each.name, each.in, brief(found, each.schema), [each.required ? "has to be there. " : "", each.description ?? each.schema?.description ?? ""].join("") || " "]))] : null,
    body ? [h("h2", {}, "Body"), h("pre", {}, JSON.stringify(example(found, body), null, 1))] : null,
    h("h2", {}, "Answers"), grid(["code", "", "shape"], Object.entries(one.responses).map(([code, answer]) => {
      const shape = Object.values(answer.content ?? {})[0]?.schema;
      return [code, answer.description ?? " ", !shape ? " " : code >= "400" ? ERROR : h("pre", {}, JSON.stringify(example(found, shape), null, 1))];
    })),
    method === "get" && !path.includes("stream") ? attempt(path, takes) : null);
}

/** A button that asks for it, and shows what comes. */
function attempt(path, takes) {
  const fields = takes.map((each) => [each, h("input", { size: "10", placeholder: each.name, "aria-label": each.name })]);
  const answer = h("pre");
  const go = async (event) => {
    event.preventDefault();
    const query = new URLSearchParams();
    let to = path;
    for (const [each, { value }] of fields) {
      if (each.in === "path") to = to.replace(new RegExp(`\\{${each.name}(:[^}]*)?\\}`), encodeURIComponent(value));
      else if (value !== "") query.set(each.name, value);
    }
    try { fill(answer, JSON.stringify(await ask(`${to}${query.size ? `?${query}` : ""}`), null, 1).slice(0, 20_000)); }
    catch (error) { fill(answer, error.message); }
  };
  return h("form", { onsubmit: go }, h("div.row", {}, fields.map(([, input]) => input), h("button", {}, "Ask for it")), answer);
}

function resolved(found, schema) {
  const name = schema?.$ref?.split("/").at(-1);
  return name ? [name, found.components?.schemas?.[name] ?? {}] : ["", schema ?? {}];
}

function brief(found, schema) {
  const [name, shape] = resolved(found, schema);
  if (name) return name;
  const any = shape.oneOf ?? shape.anyOf;
  if (any) return any.map((one) => brief(found, one)).join(" | ");
  if (shape.enum) return shape.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (shape.const !== undefined) return JSON.stringify(shape.const);
  return Array.isArray(shape.type) ? shape.type.join(" | ") : shape.type ?? "anything";
}

/** A shape as a value whose leaves are the names of their types. */
function example(found, schema, deep = 0) {
  const [, shape] = resolved(found, schema);
  const any = shape.oneOf ?? shape.anyOf;
  const whole = any?.find((one) => one.$ref || one.type === "object" || one.type === "array");
  if (deep < DEEP) {
    if (whole) return example(found, whole, deep + 1);
    if (shape.properties) return Object.fromEntries(Object.entries(shape.properties).map(([key, one]) => [key, example(found, one, deep + 1)]));
    if (shape.type === "array") return [example(found, shape.items, deep + 1)];
  }
  return brief(found, schema);
}
