//! The library behind `meshd`.
