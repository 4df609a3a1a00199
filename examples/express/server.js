const app = require("express")();

app.get("/", (request, response) => response.send("<H2>Hello World</H2>\n"));

// A container's first process gets no default signal handlers: without this, `stop` would have to wait.
process.on("SIGTERM", () => process.exit(0));

app.listen(3000, () => console.log("listening on port 3000"));
