//! Prints the OpenAPI document.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

fn main() -> Result<(), serde_json::Error> {
    let document = api::openapi::document(&api::v1::operations(), "1");
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
