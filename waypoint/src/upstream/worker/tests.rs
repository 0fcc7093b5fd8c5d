mod endings;
mod fixture;
mod limits;
mod one;
mod secure;
mod two;
